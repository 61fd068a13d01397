"""Notebook 02: its tables against the paper, its pictures in both languages, its exercises."""

from dataclasses import replace

import pytest
import torch

from efflab import lab
from efflab.estimate import Estimate
from efflab.experiments import mixer_digits
from efflab.experiments.record import recorded
from efflab.lab.check import judge
from efflab.structure.mixer import enlarged, mixer_flops, mixer_layer_flops, mixer_params
from efflab.structure.vit import vit_flops, vit_layer_flops, vit_params
from efflab_rooms.mixer import counts, exercises, measured, verdicts

ROW = dict(kind="measured", time_ratio=2.0, flop_ratio=2.0)
ROWS = [
    ROW | dict(image_size=s, patches=n, mixer_ms=n, vit_ms=n * n, mixer_params=n, vit_params=9)
    for s, n in ((32, 4), (64, 16), (128, 64))
]


def test_published_rows_agree_within_the_papers_rounding():
    rows = counts.published_rows()
    assert len(rows) == 7
    assert all(abs(row["ours"] / 1e6 - row["paper"]) < 0.6 for row in rows)  # whole millions


def test_what_the_text_says_of_b16():
    """Less than a third of arithmetic and parameters saved; nearly the same work a parameter."""
    *_, ratio = counts.base_rows()
    assert ratio["gflop"] == pytest.approx(0.721, abs=1e-3)
    assert ratio["params"] == pytest.approx(0.689, abs=1e-3)
    assert ratio["flop_per_param"] == pytest.approx(1.05, abs=0.01)


def test_both_models_of_the_digits_have_the_same_size():
    sizes = {k: sum(p.numel() for p in mixer_digits.make(k).parameters()) for k in counts.NAMES}
    assert sizes["vit"] == pytest.approx(sizes["mixer"], rel=0.03)
    same = [mixer_digits.make("mixer", 1).head.weight for _ in range(2)]
    assert torch.equal(*same)


def test_the_recorded_runs_say_what_the_text_says():
    written = recorded(mixer_digits.NAME)
    assert written["settings"]["n_steps"] == mixer_digits.N_STEPS
    assert written["seeds"] == list(mixer_digits.SEEDS)
    summary = mixer_digits.by_images(written["runs"])
    assert list(summary) == [100, 400, 1437]
    for stats in summary.values():
        assert stats["mixer"]["mean"] > stats["vit"]["mean"]
        assert all(s["low"] <= s["mean"] <= s["high"] for s in stats.values())
    assert summary[1437]["mixer"]["low"] > 0.96


def test_training_lifts_accuracy_above_chance():
    before = mixer_digits.accuracy(mixer_digits.make("mixer"))
    model = mixer_digits.trained("mixer", n_images=200, n_steps=15)
    assert before < 0.3 < mixer_digits.accuracy(model)
    rows = measured.enlarged_rows(
        {"mixer": model, "vit": mixer_digits.make("vit")},
        {"mixer": enlarged(model, 2), "vit": mixer_digits.make("vit")},
    )
    mixer, vit = rows
    assert mixer["large_params"] > 2 * mixer["small_params"]
    assert vit["large_params"] == vit["small_params"]
    assert "16, 16" in measured.refusal(model, torch.zeros(1, 1, 16, 16))
    assert measured.refusal(model, torch.zeros(1, 1, 8, 8)) == "accepted"


def test_a_layers_flops_are_a_layer_of_the_whole_models():
    mixer, vit = measured.one_layer(224).values()
    assert mixer_flops(replace(mixer, n_layer=2)) - mixer_flops(mixer) == mixer_layer_flops(mixer)
    assert vit_flops(replace(vit, n_layer=2)) - vit_flops(vit) == vit_layer_flops(vit)
    assert mixer_layer_flops(mixer) == 4 * 196 * 384 * (192 + 1536)


def test_cost_rows_measure_what_they_name():
    (row,) = measured.cost_rows([64], patch_size=16, repeats=1)
    assert row["patches"] == 16
    mixer, vit = measured.one_layer(64).values()
    assert row["mixer_params"] == mixer_params(replace(mixer, n_layer=2)) - mixer_params(mixer)
    assert row["vit_params"] == vit_params(replace(vit, n_layer=2)) - vit_params(vit)
    assert row["agreement"] == pytest.approx(row["time_ratio"] / row["flop_ratio"])
    assert row["low"] <= row["time_ratio"] <= row["high"]
    assert row["mixer_over_vit"].mean == pytest.approx(1 / row["time_ratio"])  # one repeat


def test_token_mixings_weights_know_the_number_of_patches():
    weights = {n: 2 * n * 192 + 192 + n for n in (196, 784)}  # two matrices, two biases
    assert measured.token_weights_growth() == pytest.approx(weights[784] / weights[196])


FIGURES = dict(
    flop_ratio=0.72, time=Estimate(0.4, 0.35, 0.45), band=0.05, weights=4.0, equal=1.07,
    accuracy=dict(mixer=[0.98, 0.97, 0.98], vit=[0.95, 0.93, 0.90]),
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, "holds if"),
        (dict(weights=1.0), "holds"),
        (dict(flop_ratio=1.0), "does not hold"),
        (dict(time=Estimate(1.2, 1.06, 1.3)), "does not hold"),
        (dict(time=Estimate(1.2, 1.04, 1.3)), "undecided"),
        (dict(time=Estimate(0.9, 0.8, 0.95)), "undecided"),
        (dict(time=Estimate(0.9, 0.8, 0.94)), "holds if"),
    ],
)
def test_the_verdict_can_come_to_each_outcome(change, word):
    figures = verdicts.mixer_evidence(**FIGURES | change)
    assert verdicts.mixer_simpler(figures).word == word


def test_accuracy_is_compared_seed_by_seed():
    runs = [dict(n_images=1437, seed=s, mixer=m, vit=v)
            for s, m, v in ((1, 0.97, 0.93), (0, 0.98, 0.95))]  # fmt: skip
    assert mixer_digits.by_seed(runs) == dict(mixer=[0.98, 0.97], vit=[0.95, 0.93])
    points = lab.by_id(verdicts.mixer_evidence(**FIGURES))["digits"]
    assert points.value == pytest.approx(5)
    assert points.low < points.value < points.high


def test_evidence_stands_under_its_ids():
    found = lab.by_id(verdicts.mixer_evidence(**FIGURES))
    ids = ("flops", "time", "band", "weights", "flops-equal-params")
    assert [found[key].value for key in ids] == pytest.approx([0.72, 0.4, 5, 4, 1.07])


def test_imagenet_alone_is_against_mixer_by_the_papers_figures():
    figure = lab.by_id(verdicts.mixer_evidence(**FIGURES))["imagenet"]
    assert (figure.value, figure.kind) == (pytest.approx(-3.23), "published")


def test_figures(both_languages):
    written = recorded(mixer_digits.NAME)
    fig = measured.accuracy_figure(written, {"mixer": 0.98, "vit": 0.95})
    assert len(fig.data) == 4
    assert len(fig.layout.meta) == 3
    fig = measured.cost_figure(ROWS)
    assert list(fig.layout.meta.values()) == [1.0, 2.0]  # linear and quadratic, as made up


def test_explorer(both_languages):
    meta = counts.mixer_or_vit().layout.meta
    assert meta["patches"] == 196
    assert meta["ratio"] == pytest.approx(1 / 0.721, abs=0.01)
    assert meta["token_params"] == 2 * 196 * 384
    assert meta["attention_params"] == 4 * 768**2
    larger = counts.mixer_or_vit(image_size=896).layout.meta
    wider = counts.mixer_or_vit(d_model=2048).layout.meta
    assert larger["ratio"] > meta["ratio"]
    assert wider["ratio"] < meta["ratio"]
    assert counts.mixer_or_vit(image_size=239).layout.meta == meta  # a rest is cut off


SOLUTIONS = {
    "02-1": lambda side, patch, d: 2 * (side // patch) ** 2 * d + d + (side // patch) ** 2,
    "02-2": lambda x, up, down: down @ torch.nn.functional.gelu(up @ x),
    "02-3": lambda S, C, d: (2 * C + S) / d,
}
WRONG = {
    "02-1": lambda side, patch, d: 2 * (side // patch) ** 2 * d,  # no biases
    "02-2": lambda x, up, down: down @ torch.relu(up @ x),
    "02-3": lambda S, C, d: (2 * C + 2 * S) / d,
}


@pytest.mark.parametrize("name", SOLUTIONS)
def test_exercises(name, both_languages):
    exercise = exercises.EXERCISES[name]
    assert judge(exercise, SOLUTIONS[name])[0] == "correct"
    assert judge(exercise, WRONG[name])[0] == "not quite"
    assert judge(exercise, ...)[0] == "not attempted"
