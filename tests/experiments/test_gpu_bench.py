"""The GPU benchmark's code, as far as a CPU goes: small sizes, and no GPU said in one line."""

import json
import math

import pytest
import torch

from efflab.experiments import gpu_bench, record
from efflab.experiments.form import require_run
from efflab.experiments.gpu_bench import Sizes

SMALL = Sizes(
    products=(16, 32),
    model=(2, 64, 16),
    batch_sizes=(2, 3),
    block=(64, 16),
    chains=(1, 8),
    values=(64, 2**16),
    lengths=(32, 64),
    repeats=3,
)


def measured(part):
    return gpu_bench.measure(part, device="cpu", sizes=SMALL)


def test_precision_has_a_row_for_each_format_and_shape():
    rows = measured("precision by shape")["rows"]
    assert [(row["n"], row["dtype"]) for row in rows] == [
        (n, name) for n in (16, 32) for name in ("fp32", "bf16", "fp16")
    ]
    assert all(row["faster"] == 1 for row in rows if row["dtype"] == "fp32")
    assert all(row["low"] <= row["faster"] <= row["high"] for row in rows)


def test_a_training_step_is_exact_for_what_stays():
    rows = measured("training step")["rows"]
    assert [(row["recipe"], row["batch_size"]) for row in rows] == [
        (name, n) for name in ("fp32", "bf16", "fp16") for n in (2, 3)
    ]
    # weights, gradients and two moments of a model of 2 layers: 16 bytes a parameter
    layers = 2 * (12 * 64**2 + 13 * 64)
    n_params = layers + 8192 * 64 + 16 * 64 + 2 * 64
    assert all(row["mb_stays"] == pytest.approx(16 * n_params / 1e6) for row in rows)
    assert all(row["mb_step"] > 0 and row["ms"] > 0 for row in rows)


def test_a_batch_without_room_is_a_row_without_figures(monkeypatch):
    def step(model, optimizer, ids, dtype):
        if len(ids) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(gpu_bench, "_step", step)
    rows = measured("training step")["rows"]
    assert [row["mb_step"] is None for row in rows] == [False, True] * 3
    assert [row["batch_size"] for row in rows if "ms" in row] == [2] * 3
    require_run("run", dict(seed=0, rows=rows))  # a record takes it


def test_forms_of_the_block_agree_and_are_compared():
    result = measured("eager against compiled")
    assert [row["form"] for row in result["rows"]] == [
        "written out, compiled",
        "torch's own",
        "torch's own, compiled",
    ]
    assert result["band"] >= 0


def test_launches_are_fitted():
    result = measured("launch overhead")
    assert len(result["rows"]) == 4
    assert result["overhead"] > 0
    assert math.isfinite(result["bandwidth"])


def test_attention_kernels_of_this_device():
    rows = measured("attention kernels")["rows"]
    ran = {row["kernel"] for row in rows}
    assert {"written out", "flash", "math"} <= ran
    assert "cuDNN" not in ran  # not a CPU's
    long = {row["kernel"]: row for row in rows if row["seq_len"] == 64}
    assert long["flash"]["mb"] < long["written out"]["mb"]


def test_what_a_gpu_has_no_memory_for_is_kept_as_that(monkeypatch):
    def fails(device, sizes):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\nmore lines")

    monkeypatch.setitem(gpu_bench.PARTS, "attention kernels", fails)
    assert measured("attention kernels") == dict(
        rows=[], failed="OutOfMemoryError: CUDA out of memory. Tried to allocate"
    )


def test_no_gpu_is_said_in_one_line(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu_bench.main()
    assert capsys.readouterr().out == gpu_bench.NO_GPU + "\n"
    with pytest.raises(ValueError, match="a CUDA GPU"):
        gpu_bench.run()


def test_a_recorded_machine_is_shown(monkeypatch, tmp_path):
    """A run under the settings that a GPU would give, made here with the CPU's small sizes."""
    monkeypatch.setattr(gpu_bench, "EXPERIMENTS", tmp_path)
    monkeypatch.setattr(gpu_bench, "machines", lambda name: record.machines(name, tmp_path))
    monkeypatch.setattr(
        gpu_bench, "read_record", lambda name, machine: record.read_record(name, machine, tmp_path)
    )
    assert gpu_bench.read_launches() == {}
    cases = [dict(part="launch overhead", seed=0), dict(part="precision by shape", seed=0)]
    made = record.run_cases(
        gpu_bench.NAME,
        cases,
        lambda part, seed: measured(part),
        settings=dict(gpu="a GPU"),
        say=lambda line: None,
        folder=tmp_path,
    )
    assert json.loads((tmp_path / "gpu-bench.json").read_text())["name"] == "gpu-bench"
    shapes = gpu_bench.read_part("precision by shape")
    assert shapes["a GPU"]["rows"] == made["runs"][1]["rows"]
    assert gpu_bench.read_part("training step") == {}
    with pytest.raises(ValueError, match="part='speed'"):
        gpu_bench.read_part("speed")
    found = gpu_bench.read_launches()
    assert list(found) == ["a GPU"]
    assert found["a GPU"].overhead == made["runs"][0]["overhead"]
