"""Notebook 02: its tables against the paper, its pictures in both languages, its exercises."""

from dataclasses import replace

import pytest
import torch

from efflab import bench
from efflab.data import read_published
from efflab.estimate import Estimate
from efflab.experiments import mixer_digits
from efflab.experiments.record import read_record
from efflab.lab.check import judge
from efflab.model import n_parameters
from efflab.structure.mixer import enlarge, mixer_flops, mixer_layer_flops, mixer_params
from efflab.structure.vit import vit_flops, vit_layer_flops, vit_params
from efflab_rooms.mixer import exercises, figures, measure

COSTS = [
    measure.LayerCosts(
        side,
        n,
        flops=dict(mixer=n, vit=2 * n),
        n_params=dict(mixer=n, vit=9),
        times=dict(mixer=bench.Timing((float(n),)), vit=bench.Timing((float(n * n),))),
        mixer_over_vit=Estimate(1 / n, 1 / n, 1 / n),
        band=0.0,
    )
    for side, n in ((32, 4), (64, 16), (128, 64))
]


def test_both_models_of_the_digits_have_the_same_size():
    sizes = {k: n_parameters(mixer_digits.make(k)) for k in measure.NAMES}
    assert sizes["vit"] == pytest.approx(sizes["mixer"], rel=0.03)
    same = [mixer_digits.make("mixer", 1).head.weight for _ in range(2)]
    assert torch.equal(*same)


def test_the_recorded_runs_say_what_the_text_says():
    written = read_record(mixer_digits.NAME)
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
    model = mixer_digits.train_model("mixer", n_images=200, n_steps=15)
    assert before < 0.3 < mixer_digits.accuracy(model)
    assert n_parameters(enlarge(model, 2)) > 2 * n_parameters(model)
    with pytest.raises(ValueError, match="16, 16"):
        model(torch.zeros(1, 1, 16, 16))


def test_a_layers_flops_are_a_layer_of_the_whole_models():
    mixer, vit = measure.one_layer(224)
    assert mixer_flops(replace(mixer, n_layer=2)) - mixer_flops(mixer) == mixer_layer_flops(mixer)
    assert vit_flops(replace(vit, n_layer=2)) - vit_flops(vit) == vit_layer_flops(vit)
    assert mixer_layer_flops(mixer) == 4 * 196 * 384 * (192 + 1536)


@pytest.mark.parametrize(("side", "ratio"), [(224, 0.72), (448, 0.64)])
def test_a_layers_flops_follow_the_derivation(side, ratio):
    mixer, vit = measure.base_models(side)
    S, C = mixer.n_patches, mixer.d_model
    assert mixer.d_token == C / 2
    assert mixer_layer_flops(mixer) == 18 * S * C**2
    assert vit_layer_flops(vit) == (24 + 4 * S / C) * S * C**2
    assert round(mixer_layer_flops(mixer) / vit_layer_flops(vit), 2) == ratio


def test_token_mixing_is_half_as_wide_as_the_channels_in_all_of_the_papers_models():
    assert all(row["d_token"] == row["channels"] / 2 for row in read_published("mixer"))


def test_a_layers_costs_are_what_they_are_named():
    cost = measure.layer_costs(64, repeats=1)
    assert cost.n_patches == 16
    mixer, vit = measure.one_layer(64)
    assert cost.flops == dict(mixer=mixer_layer_flops(mixer), vit=vit_layer_flops(vit))
    of_one = mixer_params(replace(mixer, n_layer=2)) - mixer_params(mixer)
    assert cost.n_params["mixer"] == of_one
    assert cost.n_params["vit"] == vit_params(replace(vit, n_layer=2)) - vit_params(vit)
    ratio = cost.times["mixer"].median / cost.times["vit"].median
    assert cost.mixer_over_vit.mean == pytest.approx(ratio)  # one repeat
    assert cost.mixer_over_vit.low <= cost.mixer_over_vit.mean <= cost.mixer_over_vit.high
    assert cost.band >= 0


def test_token_mixings_weights_know_the_number_of_patches():
    weights = {n: 2 * n * 192 + 192 + n for n in (196, 784)}  # two matrices, two biases
    assert measure.token_weights_growth() == pytest.approx(weights[784] / weights[196])


def test_figures(both_languages):
    written = read_record(mixer_digits.NAME)
    fig = figures.accuracy_figure(written, {"mixer": 0.98, "vit": 0.95})
    assert len(fig.data) == 4
    assert len(fig.layout.meta) == 3
    fig = figures.cost_figure(COSTS)
    assert list(fig.layout.meta.values()) == [1.0, 2.0]  # linear and quadratic, as made up


def test_explorer(both_languages):
    meta = figures.mixer_or_vit().layout.meta
    assert meta["patches"] == 196
    assert meta["ratio"] == pytest.approx(1 / 0.721, abs=0.01)
    assert meta["token-mixing weights per layer"] == 2 * 196 * 384
    assert meta["attention weights per layer"] == 4 * 768**2
    larger = figures.mixer_or_vit(image_size=896).layout.meta
    wider = figures.mixer_or_vit(d_model=2048).layout.meta
    assert larger["ratio"] > meta["ratio"]
    assert wider["ratio"] < meta["ratio"]
    assert figures.mixer_or_vit(image_size=239).layout.meta == meta  # a rest is cut off


SOLUTIONS = {
    "02-1": lambda x, up, down: down @ torch.nn.functional.gelu(up @ x),
    "02-2": lambda side, patch, d: 2 * (side // patch) ** 2 * d + d + (side // patch) ** 2,
    "02-3": lambda S, C, d: (2 * C + S) / d,
    "02-4": dict(patch_size=4, n_layer=2, d_model=24, d_token=32, d_channel=32),
}
WRONG = {
    "02-1": lambda x, up, down: down @ torch.relu(up @ x),
    "02-2": lambda side, patch, d: 2 * (side // patch) ** 2 * d,  # no biases
    "02-3": lambda S, C, d: (2 * C + 2 * S) / d,
    "02-4": dict(patch_size=2, n_layer=1, d_model=24, d_token=24, d_channel=24),
}


@pytest.mark.parametrize("name", SOLUTIONS)
def test_exercises(name, both_languages):
    exercise = exercises.EXERCISES[name]
    assert judge(exercise, SOLUTIONS[name])[0] == "correct"
    assert judge(exercise, WRONG[name])[0] == "not quite"
    assert judge(exercise, ...)[0] == "not attempted"
