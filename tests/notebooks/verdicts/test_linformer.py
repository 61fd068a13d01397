"""Notebook 04's verdict: what its evidence says, and the outcomes that its parts can come to."""

import pytest

from efflab.estimate import Estimate
from efflab.experiments import linformer_trained
from efflab.lab import by_id
from efflab.structure.linformer import attention_flops, linformer_flops
from efflab_rooms.linformer import verdicts

FULL = attention_flops(2048, 128), attention_flops(4096, 128)
ERRORS = {
    "learned": Estimate(65.0, 60.0, 70.0),
    "own": Estimate(53.0, 51.0, 55.0),
    "best": Estimate(0.85, 0.5, 1.2),
}


def flops_of(short: int, long: int) -> tuple[int, int]:
    """FLOPs of Linformer at 2,048 and 4,096 tokens with so many summaries of each."""
    return linformer_flops(2048, short, 128), linformer_flops(4096, long, 128)


FIXED = flops_of(128, 128)


def costs_of(ends, **others):
    """A record's cases: 0.5 nats over full attention but for these."""
    means = dict.fromkeys(linformer_trained.CASES, 0.5) | others
    costs = {key: Estimate(mean, mean - 0.01, mean + 0.01) for key, mean in means.items()}
    return costs | {"trained-quarter": Estimate(sum(ends) / 2, *ends)}


def places_of(ends, uniform=0.3):
    """Evidence of images: the interval over full attention, and the control."""
    control = Estimate(uniform, uniform - 0.02, uniform + 0.02)
    costs = {"places-started": Estimate(sum(ends) / 2, *ends), "places-uniform": control}
    return verdicts.trained_evidence(costs)


def evidence(
    flops=FIXED,
    full=FULL,
    time=1.0,
    noise=0.02,
    memory=1.0,
    full_time=1.9,
):
    time = Estimate(time, time * (1 - noise), time * (1 + noise))
    full_time = Estimate(full_time, full_time - 0.1, full_time + 0.1)
    costs = {"Linformer": (time, memory), "full": (full_time, 2.0)}
    over_fused = Estimate(0.3, 0.28, 0.33), 1.0
    found = verdicts.query_evidence(flops, full)
    return found + verdicts.layer_evidence(costs, ERRORS, over_fused)


def trained(ends=(0, 0.04), **others):
    """Evidence of text: the interval over full attention, and other cases' means."""
    return verdicts.trained_evidence(costs_of(ends, **others))


def drives():
    for given in ({}, dict(flops=flops_of(128, 256)), dict(time=1.5), dict(noise=0.5)):
        yield "linformer-fixed", evidence(**given)


@pytest.mark.parametrize(
    ("given", "query", "layer"),
    [
        ({}, "holds", "holds"),
        # summaries that grow with the text are no fixed size
        (dict(flops=flops_of(128, 256)), "does not hold", "holds"),
        (dict(flops=flops_of(128, 129)), "holds", "holds"),
        (dict(flops=flops_of(128, 130)), "does not hold", "holds"),
        (dict(full=FIXED), "undecided", "holds"),
        (dict(time=1.5), "holds", "does not hold"),
        (dict(time=0.6), "holds", "does not hold"),
        (dict(memory=2.0), "holds", "does not hold"),
        (dict(noise=0.5), "holds", "undecided"),
        (dict(full_time=1.55), "holds", "undecided"),
    ],
)
def test_linformer_fixed(given, query, layer):
    outcome = verdicts.linformer_fixed(evidence(**given))
    assert [part.outcome for part in outcome.parts] == [query, layer]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (dict(ends=(-0.1, 0.04)), "holds"),
        (dict(ends=(0.06, 0.1)), "does not hold"),
        (dict(ends=(0.04, 0.06)), "undecided"),
        # a network that needs no attention, or any projection, tells nothing
        ({"trained-uniform": 0.2}, "undecided"),
        ({"trained-fitted": 0.04}, "undecided"),
    ],
)
def test_a_trained_networks_loss_is_held_against_full_attentions(given, expected):
    (text,) = verdicts.linformer_trained(trained(**given)).parts
    assert text.outcome == expected


@pytest.mark.parametrize(
    ("ends", "uniform", "expected"),
    [
        ((-0.1, 0.04), 0.3, "holds"),
        ((0.06, 0.1), 0.3, "does not hold"),
        ((0.04, 0.06), 0.3, "undecided"),
        ((0, 0.04), 0.15, "undecided"),
    ],
)
def test_linformer_places(ends, uniform, expected):
    assert verdicts.linformer_places(places_of(ends, uniform)).parts[0].outcome == expected


def test_what_a_query_costs_is_fixed_where_full_attentions_doubles():
    found = by_id(evidence())
    assert (found["query-flops"].value, found["query-flops-full"].value) == (1, 2)


def test_the_finished_models_error_is_said():
    remark = verdicts.linformer_fixed(evidence()).parts[1].record()["remark"]
    assert "65% off on new texts, 53% on those" in remark
