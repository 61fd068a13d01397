"""Reports what this machine has, what it lacks, and what does not work without that."""

import os
import platform
import shutil
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement

from efflab.base.alignment import align
from efflab.data import STDLIB_GPT
from efflab.experiments.provenance import version_of

PACKAGES = ("torch", "transformers", "plotly", "ipywidgets", "jupyterlab")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

BROWSER_ADVICE = (
    "No Chromium or Chrome was found; the browser tests and the build's pictures need one. "
    "Install it: apt-get install chromium fonts-noto-cjk (Debian, as root), "
    ".venv/bin/playwright install --with-deps chromium, or set BROWSER_PATH to one."
)


def verbatim(text: str) -> str:
    """A text that must not be translated, marked by no-break spaces until it is printed."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def row(what: str, found: str | None, without: str) -> dict:
    """One line of the report; `found` None: missing; `without`: what then does not work."""
    return {"what": what, "found": found or "missing", "ok": bool(found), "without": without}


def cores() -> int:
    """Cores that this process may use; in a container fewer than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def find_browser() -> str | None:
    """A Chromium's path: $BROWSER_PATH, one on the PATH, or playwright's own."""
    named = [os.environ.get("BROWSER_PATH"), *map(shutil.which, BROWSERS)]
    installed = [Path(p) for p in named if p]
    for cache in (".cache/ms-playwright", "Library/Caches/ms-playwright"):
        for name in ("chrome-linux*/chrome", "chrome-mac*/*.app/Contents/MacOS/*"):
            installed += sorted((Path.home() / cache).glob(f"chromium-*/{name}"))
    return next((str(p) for p in installed if p.exists()), None)


def find_compiler() -> str | None:
    """A C++ compiler on the PATH."""
    path = next((p for p in map(shutil.which, ("g++", "clang++", "cl")) if p), None)
    return path and Path(path).name


def find_chinese_font() -> str | None:
    """A font that has Chinese: listed by fontconfig on Linux, part of macOS and Windows."""
    if platform.system() in ("Darwin", "Windows"):
        return "part of the system"
    if not shutil.which("fc-list"):
        return None
    command = ["fc-list", ":lang=zh", "family"]
    listed = subprocess.run(command, capture_output=True, timeout=60).stdout
    names = listed.decode("utf-8", "replace").splitlines()
    return verbatim(sorted(names)[0].split(",")[0]) if names else None


def find_gpu() -> str | None:
    """The name of the GPU that torch sees."""
    with suppress(ImportError, OSError):  # OSError: a library of torch's own is missing
        import torch

        return verbatim(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
    return None


def file_size(path: Path) -> str | None:
    """A file's size."""
    return verbatim(f"{path.stat().st_size / 1e6:.1f} MB") if path.exists() else None


def find_minilm() -> str | None:
    """The size of MiniLM's weights in the installed package; None if absent or other bytes."""
    with suppress(ImportError, OSError, ValueError):
        from efflab.pretrained import minilm_folder

        return file_size(minilm_folder() / "model.safetensors")
    return None


def unmet_requirements() -> list[str]:
    """Each package that efflab requires and that is not installed in a version which it takes."""
    listed: list[str] = []
    with suppress(PackageNotFoundError):  # run from a folder that was never installed
        listed = requires("efflab") or []
    needed = [need for need in map(Requirement, listed) if need.marker is None]  # without extras
    return [str(need) for need in needed if not _is_met(need, version_of(need.name))]


def _is_met(need: Requirement, found: str | None) -> bool:
    return found is not None and need.specifier.contains(found, prereleases=True)


def doctor() -> list[dict]:
    """One dict per line, with keys `what`, `found`, `ok`, `without` (what fails if missing)."""
    import psutil

    browser = (found := find_browser()) and Path(found).name
    memory = psutil.virtual_memory().total / 2**30
    python = platform.python_version() if sys.version_info >= (3, 11) else None
    rows = [
        row("Python 3.11 or newer", python, "anything"),
        row("processor cores", str(cores()), ""),
        row("memory", verbatim(f"{memory:.1f} GiB"), ""),
    ]
    rows += [row(name, version_of(name), "the notebooks") for name in PACKAGES]
    rows += [row(need, None, "the notebooks") for need in unmet_requirements()]
    return [
        *rows,
        row("stdlib-gpt checkpoint", file_size(STDLIB_GPT), "every cell that uses stdlib-gpt"),
        row("MiniLM-L6 weights", find_minilm(), "every cell that uses MiniLM-L6"),
        row("C++ compiler", find_compiler(), "notebook 07; torch.compile on the CPU"),
        row("Chromium or Chrome", browser, "the browser tests; pictures in a build"),
        row("Chinese font", find_chinese_font(), "Chinese letters in pictures of a build"),
        row("GPU", find_gpu(), "measuring on a GPU; the notebooks need none"),
    ]


def report(rows: list[dict]) -> str:
    """The rows as aligned text; missing ones with what then fails.

    In the current language, or in English where packages that `efflab.lab` needs are missing.
    """
    tr, tr_name = str.format, str
    with suppress(ImportError, OSError):
        from efflab.lab.text import tr, tr_name

    lines = []
    for r in rows:
        value = tr_name(r["found"])
        if not r["ok"]:
            value += tr(": does not work without it: {what}", what=tr_name(r["without"]))
        lines.append(["ok" if r["ok"] else "--", tr_name(r["what"]), value])
    return "\n".join(align(lines)).replace("\N{NO-BREAK SPACE}", " ")
