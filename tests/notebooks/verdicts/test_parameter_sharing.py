"""Notebook 01's verdicts: every outcome that the parts of each can come to."""

import re
from dataclasses import replace
from itertools import product

import pytest

from efflab import lab
from efflab.base.significant import significant
from efflab.estimate import Estimate
from efflab.experiments import encoder_reuse, qkv_sharing_2
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
    text = sources()["01"].read_text(encoding="utf-8")
    costs = qkv_sharing_2.cases(read_record(qkv_sharing_2.NAME)["runs"])
    for key in ("knee-half", "knee-past-half", "knee-convolution", "knee-layers"):
        ends = sorted(abs(end) for end in (costs[key].low, costs[key].high))
        value, low, high = (significant(x) for x in (abs(costs[key].mean), *ends))
        assert re.search(rf"{value}( nats)?\s(# )?\({low} to {high}\)", text), key
        assert re.search(rf"{value}( nat)?（{low} 至 {high}）", text), key
    dearer = (costs["knee-past-half"].mean / 3) / (costs["knee-half"].mean / 2)
    assert f"{significant(dearer)} times as dear" in text


# --- One encoder, many tasks -------------------------------------------------------------------


def reuse(takes, package=0.0, returns=0.0, n=10**6, memory=3.0):
    lost = dict(takes=takes, package=package, returns=returns)
    runs = [dict(task=task, head=0.8 - points, tuned=0.8) for task, points in lost.items()]
    return verdicts.reuse_evidence(runs, n, memory, Estimate(2.8, 2.7, 2.9))


@pytest.mark.parametrize(
    ("evidence", "quality", "memory"),
    [
        (reuse(0.03), "holds", "holds"),
        (reuse(0.3), "does not hold", "holds"),
        (reuse(0.05), "undecided", "holds"),
        (reuse(0.04, 0.04, 0.04, n=240), "undecided", "holds"),
        (reuse(0.03, memory=1.0), "holds", "does not hold"),
    ],
)
def test_encoder_reuse(evidence, quality, memory):
    assert outcomes(verdicts.encoder_reuse(evidence)) == {"quality": quality, "memory": memory}


def test_the_interval_of_lost_points_is_that_of_two_proportions():
    items = lab.by_id(reuse(0.04, n=240))
    half = 1.96 * ((0.76 * 0.24 + 0.8 * 0.2) / 240) ** 0.5
    lost = items["lost-takes"]
    assert (lost.value, lost.high - lost.value) == pytest.approx((4, 100 * half))
    assert lost.value - lost.low == pytest.approx(100 * half)
    assert items["texts-needed"].value == pytest.approx(240 * (100 * half / 1) ** 2, abs=50)


def test_with_the_texts_needed_the_interval_ends_at_the_margin():
    n = lab.by_id(reuse(0.04, n=240))["texts-needed"].value
    assert lab.by_id(reuse(0.04, n=n))["lost-takes"].high == pytest.approx(5, abs=0.01)


def test_several_seeds_count_by_their_mean():
    runs = [dict(task="takes", head=0.8, tuned=0.8 + d) for d in (0.01, 0.03)]
    evidence = verdicts.reuse_evidence(runs, 240, 3.0, TIME)
    assert lab.by_id(evidence)["lost-takes"].value == pytest.approx(2)


def drives():
    record = read_record(encoder_reuse.NAME)
    yield "albert-params", albert()
    yield "albert-params", albert("bert-base", share="ffn")
    pairs = {k: (a, replace(b, n_layer=1)) for k, (a, b) in measure.albert_pairs().items()}
    yield "albert-params", verdicts.albert_evidence(pairs, TIME)
    for evidence in (qkv(0.1), qkv(0.005, half=0.1), qkv(0.1, convolution=-0.1)):
        yield "qkv-share-half", evidence
    yield "encoder-reuse", verdicts.reuse_evidence(record["runs"], 240, 3.0, TIME)
    yield "encoder-reuse", reuse(0.3, memory=1.0)
    yield "encoder-reuse", reuse(0.03)
