"""The design to come of notebook 14's INT8 times: what is timed, where, and what it comes to."""

import json
from statistics import mean

import pytest
import torch

from efflab.config import PRESETS, ModelConfig
from efflab.experiments import case_study_latency as latency
from efflab.experiments import int8_latency as experiment
from efflab.experiments.int8_engines import OPENVINO, OPENVINO_FP32
from efflab.experiments.registration import every_rule, rule_hash
from efflab.lab.judge import evidence_ids, read_rules

RULES = {
    key: rule
    for key, rule in every_rule(read_rules())
    if rule.get("source", {}).get("record") == experiment.NAME
}
ROW = dict(ratio=0.5, over_torch=0.4, again=1.0, busy_cores=0.0, cpu="25-1-1")


@pytest.fixture
def tiny(monkeypatch):
    """A tiny encoder in BERT-base's place."""
    config = ModelConfig(2, 4, 32, 64, 20000, 64, causal=False)
    monkeypatch.setitem(PRESETS, "bert-base", config)


def recorded_run(monkeypatch, known=()):
    """(cases, settings and options) that `run` hands over to be recorded."""
    calls = []
    monkeypatch.setattr(experiment, "blocks", lambda name: list(known))
    monkeypatch.setattr(experiment, "run_cases", lambda *a, **options: calls.append((a, options)))
    experiment.run()
    ((_, cases, _), options) = calls[0]
    return cases, options


def block(vnni, level, isas=(None,), complete=True):
    """A machine's block: INT8's time is `level` and by seed a little more, an older one's twice."""
    runs = [
        case | ROW | dict(ratio=(2 if case["isa"] else 1) * level + 0.01 * (case["seed"] - 102))
        for case in (
            dict(shape=shape, n=n, length=length, isa=isa, seed=seed)
            for shape in experiment.SHAPES
            for n, length in experiment.INPUTS
            for isa in isas
            for seed in experiment.SEEDS
        )
    ]
    return dict(machine=dict(features=dict(vnni=vnni)), complete=complete, runs=runs)


# --- What is run -----------------------------------------------------------------------------


def test_the_runs_are_those_that_both_rules_register(monkeypatch):
    assert set(RULES) == {"ernie-int8.latency.next", "fp16-int8.serving.next"}
    cases, options = recorded_run(monkeypatch)
    assert options["rules"] == sorted(map(rule_hash, RULES.values()))
    for rule in RULES.values():
        assert rule["source"]["settings"].items() <= options["settings"].items()
        assert sorted({case["seed"] for case in cases}) == rule["source"]["seeds"]
    assert options["settings"] == json.loads(json.dumps(options["settings"]))


def test_small_inputs_come_first_for_all_seeds(monkeypatch):
    monkeypatch.setattr(latency, "limits", lambda: (None,))
    cases, _ = recorded_run(monkeypatch)
    assert len(cases) == 3 * 2 * 5
    sizes = [case["n"] * case["length"] for case in cases]
    assert sizes == sorted(sizes)
    assert [case["seed"] for case in cases[:5]] == list(experiment.SEEDS)
    assert {case["shape"] for case in cases[:5]} == {"bert-base"}


@pytest.mark.parametrize("complete", [True, False])
def test_an_older_cpu_is_imitated_where_no_real_one_is_recorded(monkeypatch, complete):
    monkeypatch.setattr(latency, "limits", lambda: (None, latency.OLDER))
    cases, _ = recorded_run(monkeypatch, [block(False, 0.9, complete=complete)])
    assert {case["isa"] for case in cases} == ({None} if complete else {None, latency.OLDER})
    cases, _ = recorded_run(monkeypatch, [block(True, 0.3)])
    assert {case["isa"] for case in cases} == {None, latency.OLDER}


def test_no_record_or_a_damaged_one_stops_no_run(monkeypatch):
    def refuse(name):
        raise ValueError(name)

    recorded_run(monkeypatch)
    monkeypatch.setattr(experiment, "blocks", refuse)
    monkeypatch.setattr(experiment, "run_cases", lambda *a, **options: "begun")
    assert experiment.run() == "begun"


@pytest.mark.parametrize("isa", [None, latency.OLDER])
def test_a_case_has_a_process_of_its_own(monkeypatch, isa):
    asked = []
    monkeypatch.setattr(experiment, "busy_cores", lambda: 0.1)
    monkeypatch.setattr(latency, "alone", lambda *task: asked.append(task) or ROW)
    assert experiment.run_one("bert-base", 4, 64, isa, 100) == ROW
    ((function, task, environment),) = asked
    assert function == "efflab.experiments.int8_latency:measure"
    expected = dict(shape="bert-base", n=4, length=64, seed=100, repeats=21)
    assert task == expected | (dict(seven_bits=True) if isa else {})
    assert environment == (dict(ONEDNN_MAX_CPU_ISA=isa) if isa else None)


@pytest.mark.parametrize(("before", "meanwhile"), [(0.8, 0.0), (0.0, 0.8)])
def test_a_busy_machine_is_refused(monkeypatch, before, meanwhile):
    asked = []
    row = ROW | dict(busy_cores=meanwhile)
    monkeypatch.setattr(experiment, "busy_cores", lambda: before)
    monkeypatch.setattr(latency, "alone", lambda *task: asked.append(task) or row)
    with pytest.raises(ValueError, match=r"busy cores=0\.8: expected at most 0\.5"):
        experiment.run_one("bert-base", 1, 16, None, 100)
    assert len(asked) == (before == 0)


def test_another_cpu_of_this_name_does_not_go_on(monkeypatch):
    monkeypatch.setattr(experiment, "machine", lambda: dict(features=dict(vnni=False)))
    monkeypatch.setattr(experiment.bench, "cpu_revision", lambda: "25-1-1")
    recorded_run(monkeypatch, [block(False, 0.9)])
    recorded_run(monkeypatch, [block(True, 0.9)])
    monkeypatch.setattr(experiment.bench, "cpu_revision", lambda: "23-49-0")
    recorded_run(monkeypatch, [block(True, 0.9)])
    with pytest.raises(ValueError, match=r"cpu='23-49-0': expected 25-1-1"):
        recorded_run(monkeypatch, [block(False, 0.9)])


@pytest.mark.parametrize("precisions", [[], ["i8", "f32"], ["f32"]])
def test_a_model_that_is_not_computed_in_8_bits_is_refused(precisions):
    with pytest.raises(ValueError, match="expected 8 bits in every linear layer"):
        experiment.require_int8(precisions)


def test_linear_layers_are_computed_in_8_bits(tiny, tmp_path):
    experiment.make_engines("bert-base", 3, tmp_path, seven_bits=True)
    precisions = experiment.linear_precisions(tmp_path / "int8.xml", experiment.full_batch(2, 16))
    assert len(precisions) == 8  # two layers of four: q, k and v in one
    experiment.require_int8(precisions)
    batch = experiment.full_batch(2, 16)
    assert set(experiment.linear_precisions(tmp_path / "fp32.xml", batch)) == {"f32"}


# --- What is timed ---------------------------------------------------------------------------


def test_engines_embed_one_encoder(tiny, tmp_path):
    made = experiment.make_engines("bert-base", 3, tmp_path)
    batch = experiment.full_batch(2, 16)
    vectors = {name: engine.embed(*batch) for name, engine in made.items()}
    exact = vectors[experiment.FP32]
    assert exact.shape == (2, 32)
    torch.testing.assert_close(vectors[OPENVINO_FP32], exact, atol=1e-5, rtol=1e-4)
    assert 1e-4 < experiment.relative_error(vectors[OPENVINO], exact) < 0.1
    assert made[OPENVINO].nbytes < made[OPENVINO_FP32].nbytes
    with pytest.raises(ValueError, match="shape='bert'"):
        experiment.make_engines("bert", 3, tmp_path)


def test_a_seed_makes_the_model_and_its_calibration(tiny, tmp_path):
    batch = experiment.full_batch(1, 16)
    vectors = []
    for i, seed in enumerate((3, 3, 4)):
        (tmp_path / str(i)).mkdir()
        made = experiment.make_engines("bert-base", seed, tmp_path / str(i))
        vectors.append(made[OPENVINO].embed(*batch))
    assert torch.equal(vectors[0], vectors[1])
    assert not torch.allclose(vectors[0], vectors[2], atol=0.1)
    first, second = experiment.calibration(3), experiment.calibration(4)
    assert len(first) == experiment.N_CALIBRATION
    assert first[0][0].shape == first[0][1].shape == (1, experiment.N_TOKENS)
    assert not torch.equal(first[0][0], second[0][0])
    assert not torch.equal(first[0][0], first[1][0])


@pytest.mark.parametrize("seven_bits", [True, False])
def test_a_run_has_both_ratios_and_the_noise(tiny, seven_bits):
    row = experiment.measure("bert-base", 2, 16, seed=3, repeats=7, seven_bits=seven_bits)
    assert row["low"] <= row["ratio"] <= row["high"]
    assert row["band"] >= abs(row["again"] - 1) - 1e-4
    assert row["over_torch"] > 0
    assert row["milliseconds"] > 0
    assert row["error"] < 0.1
    assert row["seven_bits"] is seven_bits
    assert row["busy_cores"] >= 0


def test_ratios_are_to_openvinos_fp32(tiny, monkeypatch):
    asked = []
    compare = experiment.bench.compare

    def watch(baseline, fns, warmup, repeats):
        asked.append((baseline, fns))
        return compare(baseline, fns, warmup, repeats)

    monkeypatch.setattr(experiment.bench, "compare", watch)
    experiment.measure("bert-base", 1, 16, seed=3, repeats=1)
    ((baseline, fns),) = asked
    assert baseline.__defaults__[0].name == OPENVINO_FP32
    assert {name: fn.__defaults__[0].name for name, fn in fns.items()} == {
        OPENVINO: OPENVINO,
        experiment.FP32: "fp32 eager",
    }


# --- What it comes to ------------------------------------------------------------------------


def test_cases_are_those_of_the_rules():
    estimates = experiment.cases([block(False, 0.9), block(True, 0.3)])
    for rule in RULES.values():
        assert set(evidence_ids(rule)) == {key for key in estimates if key.startswith("bert")}
    for size in ("1x16", "4x64", "16x128"):
        assert estimates[f"bert-{size}"].mean == pytest.approx(0.3)
        assert estimates[f"bert-{size}-older"].mean == pytest.approx(0.9)
    assert len(estimates) == 12


def test_a_real_older_cpu_is_preferred_to_an_imitated_one():
    both = block(True, 0.3, (None, latency.OLDER))
    alone = experiment.cases([both])
    assert alone["bert-1x16-older"].mean == pytest.approx(0.6)
    assert alone["bert-1x16"].mean == pytest.approx(0.3)
    for blocks in ([block(False, 0.9), both], [both, block(False, 0.9)]):
        assert experiment.cases(blocks)["bert-1x16-older"].mean == pytest.approx(0.9)
    unfinished = block(False, 0.9, complete=False)
    assert experiment.cases([both, unfinished]) == alone


def test_a_machine_that_the_record_lacks_has_no_cases():
    older = experiment.cases([block(False, 0.9)])
    assert all(key.endswith("-older") for key in older)
    assert experiment.cases([block(False, 0.9, complete=False)]) == {}
    first = experiment.cases([block(True, 0.1, complete=False), block(True, 0.3), block(True, 0.2)])
    assert first["minilm-4x64"].mean == pytest.approx(0.3)  # no second try replaces it


def test_intervals_are_over_seeds_and_as_wide_as_the_noise():
    one = block(True, 0.4)
    quiet = experiment.cases([one])["bert-4x64"]
    half = 2.776 * 0.01 * (10 / 4) ** 0.5 / 5**0.5
    assert quiet.high - quiet.mean == pytest.approx(half, abs=1e-5)
    for run in one["runs"]:
        run["again"] = 1.1
    noisy = experiment.cases([one])["bert-4x64"]
    assert noisy.mean == quiet.mean
    assert noisy.high == pytest.approx(1.1 * quiet.high)
    assert noisy.low == pytest.approx(0.9 * quiet.low)
    beside = experiment.cases([one], "over_torch")["bert-4x64"]
    assert beside.mean == pytest.approx(mean(run["over_torch"] for run in one["runs"]))
    with pytest.raises(ValueError, match="value='error'"):
        experiment.cases([one], "error")
