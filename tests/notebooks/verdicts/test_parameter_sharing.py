"""Notebook 01's verdicts: every outcome that the parts of each can come to."""

import re
from dataclasses import replace
from itertools import product

import pytest

from efflab import lab
from efflab.base.significant import significant
from efflab.estimate import Estimate
from efflab.experiments import encoder_reuse_3, qkv_sharing_2
from efflab.experiments.record import read_record
from efflab.publishing.catalog import sources
from efflab_rooms.parameter_sharing import measure, verdicts

TIME = Estimate(0.9, 0.85, 0.95)


def outcomes(outcome):
    return {part.id: part.outcome for part in outcome.parts}


# --- ALBERT ------------------------------------------------------------------------------------


def albert(key=None, **after):
    """The evidence; of one model, the shared config has `after` in place of its own values."""
    pairs = measure.albert_pairs()
    if key:
        before, shared = pairs[key]
        pairs[key] = before, replace(shared, **after)
    return verdicts.albert_evidence(pairs, TIME)


def test_albert_evidence_is_the_closed_forms():
    items = lab.by_id(albert())
    assert items["layers-needed"].value == pytest.approx(65.45, abs=0.01)
    removed = [items[f"{key}-removed"].value for key in verdicts.NAMES]
    assert removed == pytest.approx([87.0, 94.2, 95.2, 90.9, 71.2, 39.1], abs=0.05)
    assert items["bert-base-flops"].value == 1
    assert items["time"].high == 0.95


def test_albert_params():
    found = verdicts.albert_params(albert())
    assert outcomes(found) == {"parameters": "holds", "computation": "does not hold"}
    assert "39.1%" in found.record("albert-params")["parts"][0]["remark"]


def test_one_model_that_shares_less_is_enough():
    found = verdicts.albert_params(albert("bert-base", share="ffn"))  # 47 %
    assert outcomes(found)["parameters"] == "does not hold"


def test_a_shared_layer_that_ran_once_would_compute_less():
    pairs = {k: (a, replace(b, n_layer=1)) for k, (a, b) in measure.albert_pairs().items()}
    found = verdicts.albert_params(verdicts.albert_evidence(pairs, TIME))
    assert outcomes(found)["computation"] == "holds"


# --- QKV in half of the layers -----------------------------------------------------------------


def qkv(past, half=0.0, convolution=0.1, layers=0.3, noise=0.001):
    """A record whose step past half costs `past`, twelve seeds a little apart."""
    means = dict(none=0.0, half=half, all=half + past, convolution=convolution, layers=layers)
    runs = [
        dict(variant=variant, seed=seed, loss=4 + base + seed * 0.1 + noise * (seed - 5.5) * place)
        for seed in range(12)
        for place, (variant, base) in enumerate(means.items())
    ]
    return verdicts.qkv_evidence(qkv_sharing_2.cases(runs))


@pytest.mark.parametrize(
    ("evidence", "up_to_half", "past_half"),
    [
        (qkv(0.1), "holds", "holds"),
        (qkv(0.005), "holds", "does not hold"),
        (qkv(0.1, half=0.1), "does not hold", "holds"),
        (qkv(0.02, half=0.02), "undecided", "undecided"),
        (qkv(0.1, convolution=-0.1), "undecided", "undecided"),  # attention is not needed yet
        (qkv(0.1, convolution=0.01), "undecided", "undecided"),  # nor by more than the margin
        (qkv(0.1, layers=0.0), "undecided", "undecided"),  # sharing cannot hurt
    ],
)
def test_qkv_share_half(evidence, up_to_half, past_half):
    found = outcomes(verdicts.qkv_share_half(evidence))
    assert found == {"up-to-half": up_to_half, "past-half": past_half}


def test_qkv_evidence_pairs_the_seeds():
    items = lab.by_id(qkv(0.1, half=0.05, noise=0.0))
    assert items["knee-past-half"].value == pytest.approx(0.1)
    # the seeds' own level cancels
    assert items["knee-past-half"].high - items["knee-past-half"].low < 1e-9
    assert items["knee-half"].value == pytest.approx(0.05)
    assert items["knee-convolution"].value == pytest.approx(-0.1)
    assert items["knee-all"].value == pytest.approx(0.15)


def test_the_statement_says_the_recorded_settings():
    record = read_record(qkv_sharing_2.NAME)
    assert record["settings"].items() >= qkv_sharing_2.settings().items()
    pairs = [(run["variant"], run["seed"]) for run in record["runs"]]
    assert sorted(pairs) == sorted(product(qkv_sharing_2.VARIANTS, qkv_sharing_2.SEEDS))
    assert [record["settings"][k] for k in ("n_layer", "d_model", "n_steps")] == [6, 64, 2500]
    (statement, _) = lab.load_claims()["qkv-share-half"]["parts"]
    assert "6 layers of 64 channels, 2,500 steps; ours, recorded, 12 seeds" in statement["en"]
    parts = verdicts.qkv_share_half(
        verdicts.qkv_evidence(qkv_sharing_2.cases(record["runs"]))
    ).parts
    assert [part.basis for part in parts] == ["registered"] * 2


def test_the_text_says_what_the_record_came_to():
    text = re.sub(r"[#\s]+", " ", sources()["01"].read_text(encoding="utf-8"))
    costs = qkv_sharing_2.cases(read_record(qkv_sharing_2.NAME)["runs"])
    for key in ("knee-half", "knee-past-half", "knee-convolution", "knee-layers"):
        ends = sorted(abs(end) for end in (costs[key].low, costs[key].high))
        value, low, high = (significant(x) for x in (abs(costs[key].mean), *ends))
        assert re.search(rf"{value}( nats)? \({low} to {high}\)", text), key
        assert re.search(rf"{value}( nat)?（{low} 至 {high}）", text), key
    dearer = (costs["knee-past-half"].mean / 3) / (costs["knee-half"].mean / 2)
    assert f"costs {significant(dearer)} times as much as" in text


# --- One encoder, many tasks -------------------------------------------------------------------


def reuse(takes, package=0.0, returns=0.0, untrained=0.1, n=2000, memory=3.0):
    """A record of two seeds whose heads lose these shares of `n` texts, and on random weights."""
    lost = dict(takes=takes, package=package, returns=returns)
    rights = {(task, "tuned"): 0.8 for task in lost}
    rights |= {(task, "head"): 0.8 - share for task, share in lost.items()}
    rights |= {(task, "untrained"): 0.8 - untrained for task in lost}
    runs = [
        dict(task=task, kind=kind, seed=seed, hits="1" * k + "0" * (n - k))
        for (task, kind), right in rights.items()
        for k in [round(right * n)]
        for seed in encoder_reuse_3.SEEDS
    ]
    return verdicts.reuse_evidence(encoder_reuse_3.cases(runs), memory, TIME)


@pytest.mark.parametrize(
    ("evidence", "quality", "memory"),
    [
        (reuse(0.03), "holds", "holds"),
        (reuse(0.3), "does not hold", "holds"),
        (reuse(0.05), "undecided", "holds"),
        (reuse(0.04, 0.04, 0.04, n=240), "undecided", "holds"),
        (reuse(0.03, untrained=0.02), "undecided", "holds"),  # it would not have seen a loss
        (reuse(0.3, untrained=0.05), "undecided", "holds"),  # nor surely more than the margin
        (reuse(0.03, memory=1.0), "holds", "does not hold"),
    ],
)
def test_encoder_reuse(evidence, quality, memory):
    assert outcomes(verdicts.encoder_reuse(evidence)) == {"quality": quality, "memory": memory}


def test_a_failed_control_is_the_reason():
    failed = verdicts.encoder_reuse(reuse(0.03, untrained=0.02))
    assert "control" in failed.record("encoder-reuse")["parts"][0]["reason"]


def test_the_interval_of_lost_points_is_paired_by_text():
    item = lab.by_id(reuse(0.04, n=240))["folds-takes"]
    share = round(0.04 * 240) / 240
    half = 1.96 * (share * (1 - share) / 240) ** 0.5  # of the texts that differ, not of two samples
    assert item.value == pytest.approx(100 * share, abs=0.5)
    assert (item.high - item.low) / 2 == pytest.approx(100 * half, rel=0.15)


def test_reuse_is_registered_and_its_statement_says_the_recorded_settings():
    record = read_record(encoder_reuse_3.NAME)
    settings = record["settings"]
    (statement, _) = lab.load_claims()["encoder-reuse"]["parts"]
    words = f"{settings['n_texts']:,} texts in {settings['n_folds']} folds"
    assert words in statement["en"]
    lost = encoder_reuse_3.cases(record["runs"])
    (quality, _) = verdicts.encoder_reuse(verdicts.reuse_evidence(lost, 3.0, TIME)).parts
    assert quality.basis == "registered"


def test_the_text_says_the_fold_the_seeds_and_the_texts():
    text = re.sub(r"[#\s]+", " ", sources()["01"].read_text(encoding="utf-8"))
    settings = read_record(encoder_reuse_3.NAME)["settings"]
    of_fold = settings["n_texts"] / settings["n_folds"]
    points = 100 * 1.96 * (0.8 * 0.2 / of_fold) ** 0.5
    assert f"With a test set of {round(of_fold, -1):.0f} texts, an accuracy of 80% is" in text
    assert f"uncertain by {points:.0f} points either way (95%)" in text
    assert f"each of the {settings['n_texts']:,} texts is a test text once" in text
    assert f"which of {settings['n_modules']} modules of the library" in text


def drives():
    lost = encoder_reuse_3.cases(read_record(encoder_reuse_3.NAME)["runs"])
    yield "albert-params", albert()
    yield "albert-params", albert("bert-base", share="ffn")
    pairs = {k: (a, replace(b, n_layer=1)) for k, (a, b) in measure.albert_pairs().items()}
    yield "albert-params", verdicts.albert_evidence(pairs, TIME)
    for evidence in (qkv(0.1), qkv(0.005, half=0.1), qkv(0.1, convolution=-0.1)):
        yield "qkv-share-half", evidence
    yield "encoder-reuse", verdicts.reuse_evidence(lost, 3.0, TIME)
    for evidence in (reuse(0.3, memory=1.0), reuse(0.03), reuse(0.03, untrained=0.02)):
        yield "encoder-reuse", evidence
