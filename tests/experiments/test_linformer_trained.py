"""Linformer trained with its projections: the registered runs, the variants, masks and fits."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from designs import registered_call

from efflab.experiments import linformer_places, linformer_places_2, linformer_trained_2
from efflab.experiments import linformer_trained as experiment
from efflab.experiments.registration import rule_hash
from efflab.lab.judge import evidence_ids, read_rules
from efflab.structure.linformer import LinformerAttention, segment_means

RULE = read_rules()["linformer-trained"]["text"]
IMAGES = read_rules()["linformer-places"]["images"]


DESIGNS = [(linformer_trained_2, RULE), (linformer_places_2, IMAGES)]


@pytest.mark.parametrize(("module", "rule"), DESIGNS)
def test_the_runs_are_those_that_the_rule_registers(module, rule, monkeypatch):
    options = registered_call(module, rule, monkeypatch)
    assert options["rules"] == [rule_hash(rule)]
    assert set(evidence_ids(rule)) <= {*experiment.CASES, *linformer_places.CASES}


def test_a_fit_goes_on_from_the_model_just_trained():
    assert experiment.VARIANTS[:2] == ("full", "fitted")


def test_variants_differ_in_attention_alone():
    models = {v: experiment.make(v, 3) for v in experiment.TRAINED}
    full = models["full"].state_dict()
    for variant, model in models.items():
        added = model.state_dict().keys() - full.keys()
        assert len(added) == (0 if variant == "full" else 4)
        for name, weight in full.items():
            assert torch.equal(model.state_dict()[name], weight)
    summaries = {v: m.layers[0].attention.body.k for v, m in models.items() if v != "full"}
    assert summaries == dict(eighth=16, quarter=32, half=64, means=32, uniform=1, started=32)
    with pytest.raises(ValueError, match="variant='most'"):
        experiment.make("most", 0)


@pytest.mark.parametrize(("variant", "k"), [("means", 32), ("uniform", 1)])
def test_means_stay_means(variant, k):
    model = experiment.train_variant.__wrapped__(variant, 3, stop=1)
    for projection in experiment.projections(model):
        assert torch.equal(projection[0], segment_means(k, 128))


def test_started_leaves_the_means():
    model = experiment.make("started", 3)
    assert torch.equal(model.layers[0].attention.body.E[0], segment_means(32, 128))
    experiment.train_masked(model, experiment.batches(3), stop=1)
    for projection in experiment.projections(model):
        assert not torch.equal(projection[0], segment_means(32, 128))


def test_a_mean_of_the_whole_window_has_no_order():
    body = experiment.make("uniform", 3).layers[0].attention.body
    assert isinstance(body, LinformerAttention)
    x = torch.randn(1, 128, 64)
    torch.testing.assert_close(body(x), body(x.flip(1)))


def test_masked_bytes_are_hidden_and_asked_for():
    ids, targets = experiment.masked_windows("held-out", 64, 5)
    is_masked = ids == experiment.MASK
    assert torch.equal(is_masked, targets >= 0)
    assert is_masked.float().mean().item() == pytest.approx(experiment.MASKED, abs=0.02)
    again = experiment.masked_windows("held-out", 64, 5)
    assert torch.equal(again[0], ids)
    assert not torch.equal(experiment.masked_windows("held-out", 64, 6)[0], ids)


def test_loss_is_that_of_masked_bytes_alone():
    model = experiment.make("full", 3).eval()
    ids, targets = experiment.masked_windows("held-out", 2, 5)
    logits = model(ids)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    torch.testing.assert_close(experiment.masked_loss(model, ids, targets), expected)


def test_a_fit_changes_projections_alone_and_ends_when_a_round_lowers_nothing(monkeypatch):
    monkeypatch.setattr(experiment, "ROUND", 2)
    full = experiment.make("full", 3)
    model, losses = experiment.fit_projections(full, 3)
    for name, weight in full.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight)
    moved = [not torch.equal(p[0], segment_means(32, 128)) for p in experiment.projections(model)]
    assert all(moved)
    falls = [before - after for before, after in pairwise(losses)]
    assert falls[-1] < experiment.FALL or len(falls) == experiment.MAX_ROUNDS
    assert all(fall >= experiment.FALL for fall in falls[:-1])


def test_losses_are_paired_by_seed():
    losses = dict(full=1.5, fitted=2.5, eighth=1.9, quarter=1.7, half=1.6, means=1.8, uniform=3.0)
    losses |= dict(started=1.75)
    runs = [
        dict(variant=v, seed=seed, loss=loss + level)
        for v, loss in losses.items()
        for seed, level in ((101, 0.5), (100, 0.0), (102, 1.0))
    ]
    found = experiment.cases(runs)
    assert {key: estimate.mean for key, estimate in found.items()} == pytest.approx(
        {f"trained-{v}": loss - 1.5 for v, loss in losses.items() if v != "full"}
        | {"trained-over-means": -0.1, "started-over-means": -0.05}
    )
    assert found["trained-quarter"].high - found["trained-quarter"].low < 1e-9


def test_a_run_says_its_loss_and_how_a_fit_went(monkeypatch):
    monkeypatch.setattr(experiment, "ROUND", 1)
    monkeypatch.setattr(
        experiment, "train_variant", partial(experiment.train_variant.__wrapped__, stop=1)
    )
    assert experiment.run_one("quarter", 3).keys() == {"loss", "rounds"}
    assert experiment.run_one("quarter", 3)["rounds"] == []
    assert len(experiment.run_one("fitted", 3)["rounds"]) >= 2


# --- Images ----------------------------------------------------------------------------------


def test_digits_are_masked_pixel_by_pixel():
    ids, targets = linformer_places.masked_digits("held-out", 200, 5)
    is_masked = ids == linformer_places.MASK
    assert torch.equal(is_masked, targets >= 0)
    assert ids.shape == (200, linformer_places.CONFIG.max_len)
    assert (targets.max(), ids[~is_masked].max(), ids.min()) == (16, 16, 0)
    # the first pixel of a digit is nearly always blank
    assert (targets[:, 0][is_masked[:, 0]] == 0).float().mean() > 0.9


def test_images_summaries_are_a_quarter_of_their_pixels():
    model = experiment.make("started", 3, linformer_places.CONFIG)
    assert torch.equal(model.layers[1].attention.body.F[0], segment_means(16, 64))
    random = experiment.make("quarter", 3, linformer_places.CONFIG)
    assert random.layers[0].attention.body.k == 16


def test_a_run_on_images_says_its_loss(monkeypatch):
    monkeypatch.setattr(experiment, "train_masked", lambda model, batch: batch(1) and model)
    assert linformer_places.run_one("full", 3)["loss"] == pytest.approx(2.9, abs=0.3)
    runs = [
        dict(variant=v, seed=seed, loss=loss + 0.1 * seed)
        for v, loss in dict(full=1.3, started=1.32, uniform=1.6).items()
        for seed in linformer_places_2.SEEDS
    ]
    found = {key: estimate.mean for key, estimate in linformer_places.cases(runs).items()}
    assert found == pytest.approx({"places-started": 0.02, "places-uniform": 0.3})
