"""The case study's times and memory, on a tiny model: which stages, which engines, in what form."""

import math

import pytest
import torch

from efflab import bench, points
from efflab.config import ModelConfig
from efflab.experiments import case_study, lighten, resident
from efflab.experiments import case_study_latency as experiment
from efflab.experiments.case_study_latency import ENGINES, FILES, STAGES
from efflab.experiments.lighten import Recipe
from efflab.model import Transformer

CONFIG = ModelConfig(2, 4, 32, 64, 2048, 512, causal=True)
RECIPE = Recipe((64, None), ((), (0, 2)))


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """A tiny model in the shipped one's place."""
    torch.manual_seed(0)
    model = Transformer(CONFIG).eval()
    monkeypatch.setattr(points, "language_model", lambda: model)
    monkeypatch.setattr(case_study, "N_CALIBRATION", 2)
    case_study.calibration.cache_clear()
    yield model
    case_study.calibration.cache_clear()


def test_stages_change_what_they_say(tiny):
    shipped, light, pruned, both = (experiment.model_at(stage, RECIPE) for stage in STAGES)
    assert shipped is tiny
    windows = [[w for _, w in lighten.attentions(m)] for m in (light, pruned, both)]
    assert windows == [[64, None], [None, None], [64, None]]
    assert [a.n_head for a, _ in lighten.attentions(both)] == [4, 2]
    neurons = [sum(layer.ffn.body.up.out_features for layer in m.layers) for m in (pruned, both)]
    assert neurons == [96, 96]
    with pytest.raises(ValueError, match="stage='light'"):
        experiment.model_at("light", RECIPE)


def test_every_stage_is_timed_in_every_engine(monkeypatch):
    monkeypatch.setattr(experiment, "STAGES", (experiment.SHIPPED, experiment.BOTH))
    found = experiment.latencies([RECIPE.windows, RECIPE.removed], 1, 2)
    rows = {(row["stage"], row["engine"]): row for row in found["rows"]}
    assert len(rows) == 2 * len(ENGINES)
    assert found["band"] >= 0
    assert found["milliseconds"] > 0
    plain, exact = rows[experiment.SHIPPED, experiment.FP32], 1e-4
    assert plain["error"] == 0
    assert rows[experiment.BOTH, experiment.OPENVINO]["error"] < exact
    assert exact < rows[experiment.BOTH, experiment.INT8]["error"] < 0.5
    assert rows[experiment.SHIPPED, experiment.INT8]["nbytes"] < plain["nbytes"]
    assert rows[experiment.BOTH, experiment.FP32]["flops"] < plain["flops"]
    assert all(row["low"] <= row["ratio"] <= row["high"] for row in rows.values())


def test_training_steps_train_copies_and_keep_at_least_their_logits(tiny):
    before = [p.clone() for p in tiny.parameters()]
    found = experiment.training_steps([RECIPE.windows, RECIPE.removed], 2)
    rows = {(row["stage"], row["precision"]): row for row in found["rows"]}
    assert len(rows) == 4
    logits = 4 * case_study.BATCH_SIZE * 512 * CONFIG.vocab_size
    assert all(row["peak_bytes"] > 2 * logits for row in rows.values())  # and their gradient
    assert all(torch.equal(a, b) for a, b in zip(before, tiny.parameters(), strict=True))


def test_memory_is_what_a_process_of_its_own_adds(tmp_path, tiny):
    """Ten times the weights are seen as that much more."""
    found = []
    for i, width in enumerate((32, 1024)):
        torch.manual_seed(0)
        config = ModelConfig(2, 4, width, 4 * width, 2048, 512, causal=True)
        path = tmp_path / f"{i}.xml"
        experiment.make_engine(experiment.OPENVINO, Transformer(config).eval(), path, (1, 64))
        task = dict(path=str(path), n=1, seq_len=64)
        run = experiment.alone(f"{resident.__name__}:added", task)
        found.append((run["resident_bytes"], path.with_suffix(".bin").stat().st_size))
    (small, small_file), (large, large_file) = found
    assert large - small > 0.5 * (large_file - small_file) > 2**25


def test_memory_has_a_row_for_each_stage_and_file(monkeypatch):
    asked = []

    def alone(function, task, environment=None):
        asked.append(task["precision"])
        return dict(resident_bytes=len(asked))

    monkeypatch.setattr(experiment, "alone", alone)
    monkeypatch.setattr(experiment, "STAGES", (experiment.SHIPPED, experiment.BOTH))
    rows = experiment.memory(RECIPE, 1, processes=3)["rows"]
    assert [(row["stage"], row["engine"]) for row in rows] == [
        (stage, engine) for stage in (experiment.SHIPPED, experiment.BOTH) for engine in FILES
    ]
    assert [row["resident_bytes"] for row in rows[:2]] == [2, 5]  # medians of three
    assert asked[6:9] == ["bf16"] * 3


@pytest.mark.parametrize("vnni", [True, False])
def test_an_older_processor_is_imitated_where_this_is_newer(monkeypatch, vnni):
    monkeypatch.setattr(bench, "cpu_features", lambda: dict(avx512=True, vnni=vnni))
    limits = {case["isa"] for case in experiment.cases() if case["part"] == "time"}
    assert limits == ({None, experiment.OLDER} if vnni else {None})


def test_a_case_asks_for_a_process_with_its_instructions(monkeypatch):
    asked = []
    monkeypatch.setattr(experiment, "read_recipe", lambda: RECIPE)
    monkeypatch.setattr(experiment, "alone", lambda *task: asked.append(task) or {})
    experiment.run_one("time", 0, 4, experiment.OLDER)
    experiment.run_one("time", 0, 1)
    experiment.run_one("training", 0)
    (older, newer, training) = asked
    task = dict(recipe=[RECIPE.windows, RECIPE.removed])
    assert older[1] == task | dict(n=4, repeats=experiment.REPEATS[4], seven_bits=True)
    assert older[2] == dict(ONEDNN_MAX_CPU_ISA="AVX512_CORE")
    assert newer[1:] == (task | dict(n=1, repeats=experiment.REPEATS[1]), None)
    assert training[0].endswith(":training_steps")


def test_a_record_is_read_by_texts_and_instructions():
    rows = [dict(stage="pruned", engine="OpenVINO INT8", ratio=0.4)]
    runs = [dict(part="memory"), dict(part="time", n=1, isa=None, rows=rows)]
    runs += [dict(part="time", n=1, isa=experiment.OLDER, rows=[])]
    found = experiment.rows_of(dict(runs=runs))
    assert found == {("pruned", "OpenVINO INT8"): rows[0]}
    assert experiment.round_digits(math.pi) == 3.142
