"""Notebook 01's verdicts: every outcome that the parts of each can come to."""

from dataclasses import replace

import pytest

from efflab import lab
from efflab.estimate import Estimate
from efflab.experiments import encoder_reuse
from efflab.experiments.record import read_record
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


def qkv(past, half=0.0, control=-0.1, noise=0.001):
    """A record whose step past half costs `past`, and a control, three seeds a little apart."""
    runs = [
        dict(n_shared=n, seed=s, loss=5 + base + s * 0.1 + noise * s * n)
        for s in range(3)
        for n, base in ((1, 0.0), (3, half), (6, half + past))
    ]
    losses = {s: 5.0 + 0.1 * s for s in range(3)}
    convolution = {s: v - control + 0.001 * s for s, v in losses.items()}
    record, pair = dict(settings=dict(n_layer=6), runs=runs), dict(attention=losses)
    return verdicts.qkv_evidence(record, pair | dict(convolution=convolution), {768: 0.7, 128: 0})


@pytest.mark.parametrize(
    ("evidence", "up_to_half", "past_half"),
    [
        (qkv(0.1), "holds", "holds"),
        (qkv(0.005), "holds", "does not hold"),
        (qkv(0.1, half=0.1), "does not hold", "holds"),
        (qkv(0.02, half=0.02), "undecided", "undecided"),
        (qkv(0.1, control=0.1), "undecided", "undecided"),  # attention is not worth having yet
    ],
)
def test_qkv_share_half(evidence, up_to_half, past_half):
    found = outcomes(verdicts.qkv_share_half(evidence))
    assert found == {"up-to-half": up_to_half, "past-half": past_half}


def test_qkv_evidence_pairs_the_seeds():
    items = lab.by_id(qkv(0.1, half=0.05, noise=0.0))
    assert items["half-to-all"].value == pytest.approx(0.1)
    assert items["half-to-all"].high - items["half-to-all"].low < 1e-9  # seeds' own level cancels
    assert items["none-to-half"].value == pytest.approx(0.05)
    assert items["control"].value == pytest.approx(-0.101)
    assert items["none-to-all"].value == pytest.approx(0.15)


def test_albert_lost_by_shared_attention_with_one_embedding_alone():
    assert measure.scores_lost() == {768: 0.7, 128: -0.1}
    item = lab.by_id(qkv(0.1))["albert-768"]
    assert (item.value, item.kind) == (0.7, "published")


def test_the_recorded_control_has_attentions_seeds():
    control = measure.attention_control()
    assert control["attention"].keys() == control["convolution"].keys()
    assert len(control["attention"]) >= 3


def test_the_statement_says_the_recorded_settings():
    settings = measure.qkv_record()[0]["settings"]
    assert [settings[key] for key in ("n_layer", "d_model", "n_steps")] == [6, 64, 250]
    (statement, _) = lab.load_claims()["qkv-share-half"]["parts"]
    assert "6 layers of 64 channels, 250 steps" in statement["en"]


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
    for evidence in (qkv(0.1), qkv(0.005, half=0.1), qkv(0.1, control=0.1)):
        yield "qkv-share-half", evidence
    yield "encoder-reuse", verdicts.reuse_evidence(record["runs"], 240, 3.0, TIME)
    yield "encoder-reuse", reuse(0.3, memory=1.0)
    yield "encoder-reuse", reuse(0.03)
