"""The planner's page: efflab's own Python, and what runs it in the reader's browser."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from efflab.advice.case import ALL_DEVICES, BUDGETS, SERVING
from efflab.base.json_files import parse_json
from efflab.base.places import COPY, ROOT
from efflab.base.toml_files import read_toml
from efflab.config import PRESETS
from efflab.devices import DEVICES
from efflab.lab.text import OWN_TEXTS, speaking, tr, tr_known
from efflab.publishing.catalog import catalog
from efflab.publishing.site.assets import NPM, Assets, npm_file
from efflab.publishing.site.templates import WEB, own_texts, page_modules, render

SCRIPTS = WEB / "planner"
ROOM_TEXTS = ROOT / "notebooks" / "efflab_rooms" / "choose_plan" / "zh.toml"
WASM, LIBRARY, LOCK = "pyodide.asm.wasm", "python_stdlib.zip", "pyodide-lock.json"
MODULES = ("pyodide.mjs", "pyodide.asm.mjs")
# Prints every file that is read for a card and advice, of an encoder and a decoder, on a GPU and
# on a CPU.
TRACE = """
import sys
opened = set()
sys.addaudithook(lambda event, args: event == "open" and opened.add(str(args[0])))
from efflab.publishing.site.answer import answer
for model in ("bert-base", "gpt2"):
    for device in ("A100 80GB SXM", "CPU with VNNI"):
        for budget in (None, "latency", "decode"):
            asked = dict(preset=model, device=device, budget=budget, n_devices=1, seq_len=None)
            assert "json" in answer(asked, {})
modules = [getattr(module, "__file__", None) or "" for module in sys.modules.values()]
print(*modules, *opened, sep="\\n")
"""


def python_files() -> dict[str, bytes]:
    """What a card and advice need of efflab, found by running them; by name, laid out as a wheel.

    Also the pages' Chinese, {English: Chinese}.
    """
    command = [sys.executable, "-c", TRACE]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, encoding="utf-8")
    files = {}
    for path in map(Path, set(lines.stdout.splitlines())):
        if path.suffix != ".pyc" and path.is_relative_to(ROOT / "efflab"):
            files[path.relative_to(ROOT).as_posix()] = path.read_bytes()
        elif path.is_relative_to(ROOT / "data"):
            files[f"efflab/{COPY}/{path.relative_to(ROOT).as_posix()}"] = path.read_bytes()
    chinese = read_toml(OWN_TEXTS) | read_toml(ROOM_TEXTS) | own_texts()
    files["zh.json"] = json.dumps(chinese, ensure_ascii=False).encode()
    return files


def archive(files: dict[str, bytes]) -> bytes:
    """A zip of the files, the same bytes for the same files."""
    buffer = io.BytesIO()
    with ZipFile(buffer, "w") as archive:
        for name, content in sorted(files.items()):
            # without a time of its own: the year 1980
            archive.writestr(ZipInfo(name), content, ZIP_DEFLATED, 9)
    return buffer.getvalue()


def compile_all(library: bytes, efflab: bytes) -> dict[str, bytes]:
    """Python's library and efflab, {name: zip}: as bytecode, or without node as they are."""
    files = {LIBRARY: library, "efflab.zip": efflab}
    if not which("node"):
        return files
    with TemporaryDirectory() as folder:
        (Path(folder) / "efflab.zip").write_bytes(efflab)
        command = ["node", str(WEB / "compile_python.mjs"), str(NPM / "pyodide"), folder]
        subprocess.run(command, check=True)
        return {name: (Path(folder) / name).read_bytes() for name in files}


def load(assets: Assets) -> dict | None:
    """The page's files in the site: its modules' `folder`, and the packed `files` with their bytes.

    None without the npm package.
    """
    engine = {name: npm_file("pyodide", name) for name in (WASM, LIBRARY, *MODULES, LOCK)}
    if None in engine.values():
        return None
    packed = {WASM: engine[WASM]} | compile_all(engine[LIBRARY], archive(python_files()))
    places = {name: assets.add(name, content, packed=True) for name, content in packed.items()}
    sizes = {name: (assets.target / place).stat().st_size for name, place in places.items()}
    modules = page_modules("planner") | {name: engine[name] for name in MODULES}
    # of Pyodide's own packages none is used, so that their list is left out
    modules[LOCK] = json.dumps(parse_json(engine[LOCK]) | dict(packages={})).encode()
    files = {name: dict(address=places[name], bytes=sizes[name]) for name in places}
    return dict(folder=assets.add_folder("planner", modules), files=files)


def write(language: str, parts: dict) -> str:
    """The page in a language, of the `parts` that `load` gives."""
    texts = read_toml(ROOM_TEXTS) | own_texts()
    scripts = "".join(path.read_text(encoding="utf-8") for path in sorted(SCRIPTS.glob("*.js")))
    with speaking(language, texts):
        words = {text: tr(text) for text in re.findall(r'say\(\s*"([^"]+)"', scripts)}
        budgets = [(name, tr(name)) for name in (*SERVING, *BUDGETS)]
        devices = [(name, tr_known(name)) for name in ALL_DEVICES]
    root = "../" if language == "zh" else ""
    data = dict(language=language, root=root, files=parts["files"], words=words)
    data["notebooks"] = {
        number: dict(name=entry["name"], title=entry["title"][language])
        for number, entry in catalog().items()
    }
    data["unsure"] = [name for name, device in DEVICES.items() if "unsure" in device.source]
    lists = dict(presets=list(PRESETS), devices=devices, budgets=budgets, folder=parts["folder"])
    return render("planner.html", language, section="planner", data=data, **lists)
