"""Designs in which `stdlib-gpt` is lightened and trained on: what they run, judge and pair."""

import pytest
import torch
from designs import registered_call

from efflab import data, evaluate, points
from efflab.experiments import case_study, case_study_2, lighten, variants
from efflab.experiments import window_tuned as window
from efflab.experiments.record import read_record
from efflab.lab.judge import evidence_ids, read_rules
from efflab.structure.window import SlidingAttention

PLATEAU = read_rules()["ernie-dynamic"]["quality"]
WINDOW = read_rules()["window-tuned"]["quality"]
DESIGNS = [(window, WINDOW), (case_study_2, PLATEAU)]


@pytest.mark.parametrize(("module", "rule"), DESIGNS)
def test_the_runs_are_those_that_the_rule_registers(module, rule, monkeypatch):
    monkeypatch.setattr(case_study_2, "choose_rate", lambda runs: 6e-5)
    assert registered_call(module, rule, monkeypatch)["any_machine"]


def test_a_window_is_in_every_layer_and_changes_no_weight():
    full, narrow = map(window.make, window.VARIANTS)
    bodies = [layer.attention.body for layer in narrow.layers]
    assert all(isinstance(body, SlidingAttention) and body.window_size == 64 for body in bodies)
    for a, b in zip(full.parameters(), narrow.parameters(), strict=True):
        assert torch.equal(a, b)
    assert full is not points.language_model()  # which training must not touch
    with pytest.raises(ValueError, match="variant='half'"):
        window.make("half")


def test_the_lightened_model_is_the_case_studys():
    control, light = map(case_study_2.make, case_study_2.VARIANTS)
    plain = lighten.forward_flops(control, case_study.SEQ_LEN)
    assert 1 - lighten.forward_flops(light, case_study.SEQ_LEN) / plain >= case_study.SHARE
    with pytest.raises(ValueError, match="variant='half'"):
        case_study_2.make("half")


def test_bits_are_those_of_the_seeds_second_halves(monkeypatch):
    monkeypatch.setattr(window, "N_WINDOWS", 2)
    monkeypatch.setattr(window, "SEQ_LEN", 32)
    model = points.language_model()
    ids, targets = data.random_windows(data.stdlib_tokens("held-out"), 2, 32, 7)
    chosen = model(ids).log_softmax(-1).gather(-1, targets[..., None])[:, 16:, 0]
    n_bytes = evaluate.token_bytes()[targets[:, 16:]].sum()
    expected = -chosen.sum().item() / torch.tensor(2.0).log().item() / n_bytes
    assert window.seed_bits(model, 7) == pytest.approx(expected, rel=1e-5)
    assert window.seed_bits(model, 8) != window.seed_bits(model, 7)


def test_a_run_trains_with_its_window(monkeypatch):
    for name, value in dict(N_WINDOWS=2, SEQ_LEN=128, N_STEPS=2, BATCH_SIZE=1).items():
        monkeypatch.setattr(window, name, value)
    shipped = window.seed_bits(points.language_model(), 3)
    full, narrow = (window.run_one(variant, 3) for variant in window.VARIANTS)
    assert full["before"] == round(shipped, 5)
    assert narrow["before"] > shipped + 0.1 > full["after"]
    assert window.seed_bits(points.language_model(), 3) == shipped


def test_rounds_end_with_the_level_they_reached(monkeypatch):
    for name, value in dict(SEQ_LEN=64, N_STEPS=4, N_ROUNDS=2, BATCH_SIZE=1).items():
        monkeypatch.setattr(case_study_2, name, value)
    levels, drawn = iter([1.0, 1.1, 1.2]), []
    monkeypatch.setattr(case_study_2, "held_out_bits", lambda *asked: next(levels))
    windows = data.random_windows

    def note(stream, n, length, seed):
        drawn.append(seed)
        return windows(stream, n, length, seed)

    monkeypatch.setattr(data, "random_windows", note)
    run = case_study_2.run_one("control", 3, 1e-4)
    assert run["levels"] == [1.0, 1.1, 1.2]
    assert (run["before"], run["end"]) == (1.0, 1.2)
    assert drawn == [3 * 10**6 + step for step in range(4)]


def test_each_seed_judges_by_its_own_windows(monkeypatch):
    monkeypatch.setattr(case_study_2, "N_WINDOWS", 2)
    monkeypatch.setattr(case_study_2, "SEQ_LEN", 32)
    bits = [case_study_2.seed_bits(points.language_model(), seed) for seed in (3, 3, 4)]
    assert bits[0] == bits[1] != bits[2]


def test_all_controls_come_first(monkeypatch):
    monkeypatch.setattr(case_study_2, "choose_rate", lambda runs: 6e-5)
    calls = []
    monkeypatch.setattr(variants, "run_cases", lambda *a, **options: calls.append((a, options)))
    case_study_2.run()
    ((_, cases, _), options) = calls[0]
    assert [case["variant"] for case in cases] == ["control"] * 5 + ["lightened"] * 5
    assert [case["seed"] for case in cases] == 2 * list(case_study_2.SEEDS)
    runs = case_study.paths(read_record(case_study.NAME), case_study.MAIN).values()
    assert [list(options["settings"]["windows"])] * 3 == [run["rows"][0]["windows"] for run in runs]


def test_differences_are_paired_by_seed():
    seeds = ((231, 0.5), (230, 0.0), (232, 1.0))
    trained = dict(full=(1.0, 0.9), window=(1.5, 1.1))
    runs = [
        dict(variant=v, seed=seed, before=before + level, after=after + level)
        for v, (before, after) in trained.items()
        for seed, level in seeds
    ]
    found = {key: estimate.mean for key, estimate in window.cases(runs).items()}
    expected = {"window-untrained": 0.5, "window-trained": 0.1, "full-trained": -0.1}
    assert found == pytest.approx(expected | {"trained-alike": 0.2})
    assert set(evidence_ids(WINDOW)) == found.keys()
    rounds = dict(control=(1.0, 1.02, 1.03), lightened=(1.8, 1.2, 1.15))
    runs = [
        dict(variant=v, seed=seed, before=a + level, end=c + level, levels=[a, b + level, c])
        for v, (a, b, c) in rounds.items()
        for seed, level in seeds
    ]
    found = {key: estimate.mean for key, estimate in case_study_2.cases(runs).items()}
    assert found == pytest.approx({"tuned": 0.12, "control": 0.03, "last-round": -0.05})
    assert set(evidence_ids(PLATEAU)) <= found.keys()
