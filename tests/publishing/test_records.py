"""What a record of engines says of the claim on sizes, on a record made up here."""

import json

import pytest
from ledgers import HERE, THERE

from efflab.config import PRESETS
from efflab.cost import num_params
from efflab.experiments import int8_engines
from efflab.experiments.provenance import machine_name
from efflab.publishing import records

BYTES = {int8_engines.FP32: 1000, "torchao INT8 weights": 610, "ONNX Runtime INT8": 260}


def block(machine, complete=True, **changes):
    n_bytes = BYTES | {int8_engines.OPENVINO: 255} | changes
    same = dict(seed=0, made=1)
    runs = [dict(engine=name, bytes=n, isa=None, **same) for name, n in n_bytes.items()]
    runs.append(dict(engine=int8_engines.OPENVINO, bytes=1, isa="AVX2", **same))  # less of the CPU
    made = [
        dict(date=date, command="efflab experiment int8-engines", commit=None, versions={})
        for date in ("2026-01-01", "2026-02-02")
    ]
    block = dict(machine=machine, complete=complete, settings={}, models={})
    return block | dict(runs=runs, provenance=made)


@pytest.fixture
def root(toy, monkeypatch):
    """A repository whose record holds two machines, and one that was not finished."""
    (toy / "catalog.toml").write_text('["09"]\nname = "09_quantization"\nclaims = ["int8-size"]\n')
    path = toy.parent / "data" / "experiments" / f"{int8_engines.NAME}.json"
    path.parent.mkdir(parents=True)
    other = dict(HERE, cpu="Other")
    blocks = [block(HERE), block(THERE), block(other, complete=False)]
    path.write_text(json.dumps(dict(name=int8_engines.NAME, machines=blocks)), encoding="utf-8")
    return toy.parent


def test_figures_are_shares_of_the_smallest_file_of_each_form():
    found = [(f.value, f.unit, f.kind) for f in records.size_evidence(block(HERE))]
    config = PRESETS["minilm-l6"]
    tables = (config.vocab_size + config.max_len + config.type_vocab) * config.d_model
    assert found == [
        (pytest.approx(74.5), "%", "recorded"),
        (pytest.approx(39.0), "%", "recorded"),
        (pytest.approx(100 * tables / num_params(config)), "%", "computed"),
        (pytest.approx(49.0), "%", "computed"),
    ]


def test_each_finished_machine_that_is_not_known_is_a_column(root):
    here, there = records.from_records(root=root)
    assert (here.machine, there.machine) == (HERE, THERE)
    assert (here.date, here.source) == ("2026-02-02", "records")
    assert list(here.verdicts) == ["int8-size"]
    (only,) = records.from_records([machine_name(HERE)], root)
    assert only.machine == THERE


def test_without_a_record_or_a_notebook_there_is_no_column(root):
    (root / "notebooks" / "catalog.toml").write_text("")
    assert records.from_records(root=root) == []


def test_without_a_record_there_is_no_column(root):
    (root / "data" / "experiments" / f"{int8_engines.NAME}.json").unlink()
    assert records.from_records(root=root) == []
