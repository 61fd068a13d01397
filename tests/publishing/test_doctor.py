"""What the doctor finds: each thing alone, on machines that are made up here."""

import os
import subprocess
import sys
from importlib.metadata import version
from types import SimpleNamespace

import psutil
import pytest

from efflab.publishing import doctor

HARD = "\N{NO-BREAK SPACE}"


def only(monkeypatch, **there):
    """A PATH on which these programs alone are found: {name with _ for -: path}."""
    found = {name.replace("_", "-"): path for name, path in there.items()}
    monkeypatch.setattr(doctor.shutil, "which", found.get)


def test_a_files_size_in_megabytes(tmp_path):
    path = tmp_path / "weights"
    assert doctor.file_size(path) is None
    path.write_bytes(bytes(1_540_000))
    assert doctor.file_size(path) == f"1.5{HARD}MB"


def test_an_installed_package_and_one_that_is_not():
    assert doctor.version_of("pytest") == version("pytest")
    assert doctor.version_of("no-such-package") is None


def test_every_package_required_is_looked_for_in_the_version_that_is_asked(monkeypatch):
    listed = ["numpy", "no-such-package", "numpy>=1000", 'no-other; extra == "test"']
    monkeypatch.setattr(doctor, "requires", lambda _: listed)
    assert doctor.unmet_requirements() == ["no-such-package", "numpy>=1000"]
    missing = [r for r in doctor.doctor() if r["what"] in listed]
    assert [(r["what"], r["ok"]) for r in missing] == [(w, False) for w in listed[1:3]]


def test_a_folder_that_was_never_installed_requires_nothing(monkeypatch):
    def unknown(_):
        raise doctor.PackageNotFoundError

    monkeypatch.setattr(doctor, "requires", unknown)
    assert doctor.unmet_requirements() == []


@pytest.mark.parametrize(
    ("listed", "found"),
    [("Noto Z,Z\nNoto Sans CJK,思源\n", f"Noto{HARD}Sans{HARD}CJK"), ("", None)],
)
def test_a_chinese_font_is_the_first_that_fontconfig_lists(monkeypatch, listed, found):
    monkeypatch.setattr(doctor.platform, "system", lambda: "Linux")
    only(monkeypatch, fc_list="/fc-list")
    made = SimpleNamespace(stdout=listed.encode())
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: made)
    assert doctor.find_chinese_font() == found


@pytest.mark.parametrize("system", ["Darwin", "Windows", "Linux"])
def test_a_chinese_font_is_part_of_other_systems(monkeypatch, system):
    monkeypatch.setattr(doctor.platform, "system", lambda: system)
    only(monkeypatch)
    assert doctor.find_chinese_font() == (None if system == "Linux" else "part of the system")


def test_a_browser_is_the_one_named_then_one_on_the_path_then_playwrights(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("BROWSER_PATH", raising=False)
    only(monkeypatch)
    assert doctor.find_browser() is None
    own = tmp_path / ".cache" / "ms-playwright" / "chromium-1" / "chrome-linux" / "chrome"
    own.parent.mkdir(parents=True)
    own.touch()
    assert doctor.find_browser() == str(own)
    first, named = tmp_path / "google-chrome", tmp_path / "named"
    first.touch()
    only(monkeypatch, google_chrome=str(first))
    assert doctor.find_browser() == str(first)
    monkeypatch.setenv("BROWSER_PATH", str(named))
    assert doctor.find_browser() == str(first)  # what is named is not there
    named.touch()
    assert doctor.find_browser() == str(named)


def test_a_compiler_has_its_programs_name(monkeypatch):
    only(monkeypatch)
    assert doctor.find_compiler() is None
    only(monkeypatch, **{"clang++": "/usr/bin/clang++", "cl": "/cl"})
    assert doctor.find_compiler() == "clang++"


@pytest.mark.parametrize(("path", "found"), [("/opt/chrome", "chrome"), (None, "missing")])
def test_the_rows_tell_what_is_here(monkeypatch, path, found):
    monkeypatch.setattr(doctor, "find_browser", lambda: path)
    rows = {row["what"]: row for row in doctor.doctor()}
    browser = rows["Chromium or Chrome"]
    assert (browser["found"], browser["ok"]) == (found, path is not None)
    assert rows["processor cores"]["found"] == str(len(os.sched_getaffinity(0)))
    memory = psutil.virtual_memory().total / 2**30
    assert rows["memory"]["found"] == f"{memory:.1f}{HARD}GiB"
    assert rows["MiniLM-L6 weights"]["found"].endswith(f"{HARD}MB")
    assert {"torch", "plotly", "GPU", "C++ compiler"} <= set(rows)


@pytest.mark.parametrize("package", ["torch", "plotly"])
def test_it_reports_also_where_a_package_is_missing(package):
    """In a process of its own, that has imported nothing yet."""
    code = f"import sys; sys.modules[{package!r}] = None; from efflab.cli import main"
    code += "; sys.exit(main(['doctor', '--language', 'zh']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "torch" in done.stdout


@pytest.mark.parametrize("module", ["torch", "efflab.pretrained"])
def test_what_torch_finds_is_missing_where_torch_is(monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    find = doctor.find_gpu if module == "torch" else doctor.find_minilm
    assert find() is None


def test_the_report_is_aligned():
    rows = [doctor.row("a thing", None, "the other"), doctor.row("cores", "2", "")]
    assert doctor.report(rows).splitlines() == [
        "--  a thing  missing: does not work without it: the other",
        "ok  cores    2",
    ]
