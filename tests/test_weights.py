"""What is loaded is what was saved, whole, or a `ValueError` names the file and the remedy."""

import ast
import json
import os

import pytest
import torch
from code_files import code_files
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from efflab import weights
from efflab.publishing.catalog import ROOT

REMEDY = "bake it anew"
TENSORS = {
    "a": torch.arange(6.0).view(2, 3),
    "b": torch.tensor(2, dtype=torch.int64),
    "c": torch.ones(3, dtype=torch.bfloat16),
    "empty": torch.zeros(0, 4),
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "folder" / "t.safetensors"
    weights.save_tensors(path, TENSORS, {"unit": "metre"})
    return path


def rewrite(path, tensors=None, **metadata):
    """The file with other tensors or metadata, its hash left as it was."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata() | metadata
    save_file(load_file(path) | (tensors or {}), path, metadata)


def test_reloads_whole(path):
    tensors, metadata = weights.read_tensors(path, REMEDY)
    assert metadata == {"unit": "metre"}
    assert tensors.keys() == TENSORS.keys()
    for name, t in tensors.items():
        assert t.dtype == TENSORS[name].dtype
        assert torch.equal(t, TENSORS[name])


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-9]),
        lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x7f"),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff" * 64),  # a header of 2^64 bytes
        lambda path: rewrite(path, unit="foot"),
        lambda path: rewrite(path, more="said"),
        lambda path: rewrite(path, {"a": TENSORS["a"].view(3, 2)}),
        lambda path: rewrite(path, {"c": TENSORS["c"].view(torch.int16)}),
        lambda path: rewrite(path, {"z": TENSORS["a"]}),
        lambda path: save_file({"a": TENSORS["a"]}, path),  # nothing says what it is
        lambda path: rewrite(path, sha256=weights.digest({}, {})),
    ],
)
def test_any_change_is_refused_with_file_and_remedy(path, change):
    change(path)
    with pytest.raises(ValueError, match=REMEDY) as error:
        weights.read_tensors(path, REMEDY)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("shape", [[10**11], [-6], [2, 3, 10**9], ["6"]])
def test_a_shape_that_the_file_does_not_hold_takes_no_memory(tmp_path, shape):
    head = {"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 24]}}
    text = json.dumps(head).encode()
    (tmp_path / "t").write_bytes(len(text).to_bytes(8, "little") + text + bytes(24))
    with pytest.raises(ValueError, match=f"t is damaged: .*; {REMEDY}"):
        weights.read_tensors(tmp_path / "t", REMEDY)


def test_a_missing_file_is_named_with_its_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"x is missing; {REMEDY}"):
        weights.read_tensors(tmp_path / "x", REMEDY)


def test_a_failed_write_leaves_the_old_file(path, monkeypatch):
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        weights.save_tensors(path, {"a": torch.zeros(3)}, {})
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def model():
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    made.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    return made


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("0.weight"), r"file: .* missing: 0\.weight$"),
        (lambda t: t.pop("mask"), "missing: mask"),
        (lambda t: t.update(more=torch.ones(1)), "unknown: more"),
        (lambda t: t.clear(), r"missing: 0\.bias, 0\.weight, 1\.bias and 5 more"),
        (lambda t: t.update({"0.bias": torch.ones(1)}), r"0\.bias .*\(1,\).*the model's shape"),
        (lambda t: t.update({"0.weight": t["0.weight"].T}), r"\(3, 2\)"),
        (lambda t: t.update({"0.bias": torch.ones(2, dtype=torch.float64)}), r"float64"),
        (lambda t: t.update({"0.bias": torch.ones(2, dtype=torch.int8)}), r"int8"),
        (lambda t: t.update({"1.num_batches_tracked": torch.tensor(1.0)}), "float32"),
        (lambda t: t["0.weight"].fill_(torch.nan), r"file: 0\.weight=.*: expected finite"),
    ],
)
def test_a_model_is_filled_with_all_or_nothing(change, message):
    target, tensors = model(), {n: t.clone() for n, t in weights.named_tensors(model()).items()}
    tensors["0.bias"] += 1
    change(tensors)
    before = {n: t.clone() for n, t in weights.named_tensors(target).items()}
    with pytest.raises(ValueError, match=message):
        weights.fill(target, tensors, "file")
    for name, t in weights.named_tensors(target).items():
        assert torch.equal(t, before[name])


def test_a_model_is_filled_from_a_narrower_type():
    target = model()
    halves = {
        n: t.half() if t.is_floating_point() else t
        for n, t in weights.named_tensors(model()).items()
    }
    halves["0.bias"] = torch.tensor([0.5, 2.0]).half()
    assert weights.fill(target, halves)[0].bias.tolist() == [0.5, 2.0]
    assert target[0].bias.dtype == torch.float32


@pytest.mark.parametrize("value", [7e4, -7e4, torch.inf, torch.nan])
def test_a_narrower_type_keeps_what_is_finite_or_says_where_not(value):
    fits, large = torch.tensor([6e4, 1e-9]), torch.tensor([1.0, value])
    assert weights.narrow({"a": fits}, torch.float16)["a"].dtype == torch.float16
    with pytest.raises(ValueError, match=r"^b=.*: expected .* 1 of 2 are not in float16"):
        weights.narrow({"a": fits, "b": large}, torch.float16)


def loaders(tree: ast.AST) -> list[str]:
    """What only `weights` may do: read tensors from disk, or fill a model in part."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            found += [name for name in names if name.split(".")[0] == "safetensors"]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            call, keywords = node.func.attr, {k.arg: ast.unparse(k.value) for k in node.keywords}
            if call == "load_state_dict" and (len(node.args) > 1 or "strict" in keywords):
                found.append("strict=False")
            if ast.unparse(node.func) in ("torch.load", "torch.jit.load", "torch.package.load"):
                found.append(ast.unparse(node.func))
    return found


def test_one_module_reads_weights():
    modules = [*code_files().values(), *(ROOT / "notebooks" / "src").glob("*.py")]
    found = {str(m.relative_to(ROOT)): loaders(ast.parse(m.read_text("utf-8"))) for m in modules}
    assert len(found) > 100
    assert [name for name, what in found.items() if what] == [os.path.join("efflab", "weights.py")]


@pytest.mark.parametrize(
    "line",
    [
        "import safetensors.torch",
        "from safetensors.torch import load_file",
        "m.load_state_dict(t, strict=False)",
        "m.load_state_dict(t, False)",
        "torch.load(path)",
    ],
)
def test_another_that_does_is_found(line):
    assert loaders(ast.parse(line))
