"""Nothing is reported: every load goes through one place, and a notebook's run reaches nobody."""

import ast
import os
import shutil
import socket
import subprocess
import sys

import nbformat
import offline
import pytest
from code_files import FOLDERS, code_files

from efflab.base import privacy
from efflab.cli import main
from efflab.distributed.launch import launch
from efflab.experiments.isolated import run_isolated
from efflab.lab import use_notebook
from efflab.publishing.catalog import ROOT

LOADERS = ("__import__", "import_module", "importorskip")
SOURCES = [p for f in ("efflab", "tests", "notebooks") for p in (ROOT / f).rglob("*.py")]

REPORTING = ("nncf", "onnxruntime", "openvino")
"""Libraries that report as soon as they are loaded."""


def loads(source: str) -> list[str]:
    """The modules that report and that this source loads by itself, not by `privacy.load`."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [node.module or ""]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            found += [str(node.args[0].value)] if name in LOADERS else []
    return [name for name in found if name.split(".")[0] in REPORTING]


def test_what_reports_is_loaded_in_one_place():
    found = {str(path): loads(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert len(found) > 200
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import openvino as ov",
        "def f():\n    import nncf.quantization",
        "with quiet():\n    from onnxruntime import InferenceSession",
        'importlib.import_module("openvino.frontend")',
        'pytest.importorskip("nncf")',
    ],
)
def test_any_way_of_loading_is_found(source):
    assert len(loads(source)) == 1


def test_the_package_loads_before_it_is_asked_nothing_that_reports():
    """`use_notebook`, which opts out, stands below a notebook's imports."""
    names = [p.relative_to(f.parent).with_suffix("") for f in FOLDERS for p in f.rglob("*.py")]
    modules = [".".join(name.parts) for name in names if "template" not in name.parts]
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name.removesuffix('.__init__'))\n"
        f"print([n for n in {REPORTING!r} if n in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout == "[]\n"


def unpickling(source: str) -> list[str]:
    """Calls by which this source may unpickle what it reads."""
    safe = dict(np=("allow_pickle", False), torch=("weights_only", True))
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            module, name = ast.unparse(node.func.value), node.func.attr
            given = [(k.arg, getattr(k.value, "value", None)) for k in node.keywords]
            if name in ("load", "loads", "Unpickler") and module in ("np", "torch", "pickle"):
                found += [] if safe.get(module) in given else [ast.unparse(node)]
    return found


def test_no_file_is_unpickled():
    """Ranks and their parent exchange pickles through pipes of their own, and nobody else does."""
    ours = [p for p in code_files().values() if p.parent.name != "distributed"]
    assert [call for path in ours for call in unpickling(path.read_text(encoding="utf-8"))] == []
    assert unpickling("torch.load(p); np.load(p, allow_pickle=True); pickle.loads(b)") != []
    assert unpickling("torch.load(p, weights_only=True); json.load(f)") == []


# --- Who opts out ----------------------------------------------------------------------------


@pytest.fixture
def asked_nothing(monkeypatch):
    """A process to which nobody has said that it should not report."""
    for name in privacy.OPT_OUTS:
        monkeypatch.setenv(name, "")


def opted_out(*_) -> bool:
    return privacy.OPT_OUTS.items() <= os.environ.items()


def as_result() -> dict:
    return {"opted out": opted_out()}


def test_a_command_a_notebook_and_a_loaded_module_opt_out(asked_nothing, monkeypatch, capsys):
    for enter in (
        lambda: main(["list"]),
        lambda: use_notebook("09_quantization", {}, {}),
        lambda: privacy.load("json"),
    ):
        for name in privacy.OPT_OUTS:
            monkeypatch.delenv(name)
        enter()
        assert opted_out()


def test_ranks_and_measurements_opt_out(asked_nothing, monkeypatch):
    assert not opted_out()
    assert launch(opted_out, 1, timeout=60) == [True]
    folders = ROOT / "tests" / "base", ROOT / "tests", ROOT
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, folders)))
    assert run_isolated("test_privacy:as_result", {}) == {"opted out": True}


# --- What leaves -----------------------------------------------------------------------------


CELLS = (
    """
from efflab import lab
lab.use_notebook("09_quantization", {}, {})
""",
    """
import tempfile
import nncf, onnxruntime, openvino, torch  # as a reader may
from efflab.compression import engines
from efflab.config import ModelConfig
from efflab.model import Transformer

model = Transformer(ModelConfig(1, 2, 64, 64, 50, 16, type_vocab=2, pooler=True)).eval()
batch = torch.ones(1, 8, dtype=torch.int64), torch.ones(1, 8, dtype=torch.int64)
with tempfile.TemporaryDirectory() as folder:
    made = engines.openvino_int8(model, folder, [batch]), engines.onnx_int8(model, folder)
    print([tuple(engine.embed(*batch).shape) for engine in made])
""",
)


def test_a_notebook_in_a_plain_jupyter_reaches_nobody_and_leaves_no_number(tmp_path):
    """By strace where there is one; the libraries keep a reader's number at home before they send.

    No command of ours starts the kernel, and nothing in its environment forbids reports.
    """
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "toy.ipynb")
    kept = {name: value for name, value in os.environ.items() if name not in privacy.OPT_OUTS}
    home, trace = tmp_path / "home", tmp_path / "trace"
    home.mkdir()
    command = [sys.executable, "-m", "jupyter", "execute", "--inplace", "toy.ipynb"]
    if shutil.which("strace"):
        calls = "trace=connect,sendto,sendmmsg"
        command = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", calls, "-o", str(trace), *command]
    environment = kept | {"HOME": str(home), "PYTHONPATH": str(ROOT)}
    environment.pop("XDG_CACHE_HOME", None)
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    outputs = nbformat.read(tmp_path / "toy.ipynb", as_version=4).cells[1].outputs
    assert [o.text for o in outputs if o.get("name") == "stdout"] == ["[(1, 64), (1, 64)]\n"]
    assert not trace.exists() or offline.traced(trace) == []
    assert {path.name for path in home.iterdir()} <= {".ipython", ".jupyter", ".local", ".cache"}
    assert not (home / ".cache" / "Microsoft").exists()


def test_a_trace_tells_elsewhere_from_here(tmp_path):
    trace = tmp_path / "trace"
    lines = [
        '7 connect(3, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("8.8.8.8")}, 16)',
        '7 connect(3, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("127.0.0.53")})',
        "7 connect(3, {sa_family=AF_INET6, sin6_port=htons(443), sin6_flowinfo=htonl(0), "
        'inet_pton(AF_INET6, "2001:db8::1", &sin6_addr), sin6_scope_id=0}, 28)',
        '7 connect(3, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("127.0.0.1")})',
        'inet_pton(AF_INET6, "::1", &sin6_addr), sin6_scope_id=0, sa_family=AF_INET6',
        '7 connect(3, {sa_family=AF_UNIX, sun_path="/var/run/nscd/socket"}, 110) = -1',
    ]
    trace.write_text("\n".join(lines))
    assert offline.traced(trace) == lines[:3]


@pytest.mark.parametrize(
    "reach",
    [
        lambda: socket.create_connection(("203.0.113.1", 80), timeout=1),
        lambda: socket.getaddrinfo("example.org", 443),
        lambda: socket.gethostbyname("example.org"),
        lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"", ("203.0.113.1", 53)),
    ],
)
def test_a_test_that_reaches_out_is_refused_and_fails(reach):
    with pytest.raises(PermissionError, match=r"reaches for '(203|example)"):
        reach()
    assert offline.tried().count("\n") == 1
    assert offline.tried() == ""


def test_this_machine_may_be_reached():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
    socket.getaddrinfo("localhost", 80)
    assert offline.tried() == ""
