"""Notebook 00's verdict: its figures, and every outcome that its parts can come to."""

from dataclasses import replace

import pytest

from efflab import layers
from efflab.estimate import Estimate
from efflab.lab import by_id
from efflab_rooms.start_here import verdicts

ONE = Estimate(1.0, 0.9, 1.1)
CHANNELS = (128, 192, 384)


def evidence(clock=ONE, channels=192, **inputs):
    """The evidence with one shape's clock changed."""
    clocks = dict.fromkeys(CHANNELS, ONE) | {channels: clock}
    return verdicts.attention_evidence(clocks, Estimate(0.5, 0.4, 0.6), **inputs)


def longest(n):
    """The models, if they took inputs of `n` tokens."""
    pairs = verdicts.MODELS.items()
    return {key: (name, replace(config, max_len=n)) for key, (name, config) in pairs}


def drives():
    yield "attention-quadratic", evidence()
    yield "attention-quadratic", evidence(models=longest(10**5), long_context=73_728)
    yield "attention-quadratic", evidence(Estimate(2.5, 2.1, 3.0), 384)
    yield "attention-quadratic", evidence(Estimate(0.6, 0.4, 0.8), 128)


def outcomes(**inputs):
    return {p.id: p.outcome for p in verdicts.attention_quadratic(evidence(**inputs)).parts}


def test_figures_of_the_verdict_are_the_closed_forms():
    found = by_id(evidence())
    values = {key: found[f"{model}-{key}"].value for model in ("bert",) for key in ("own", "long")}
    assert values == {"own": 10, "long": pytest.approx(96.6, abs=0.05)}
    assert found["gpt3-own"].value == pytest.approx(2.7027, abs=1e-3)
    assert found["gpt3-long"].value == pytest.approx(64, abs=0.05)
    assert [found[f"{key}-crossing"].value for key in ("bert", "gpt3")] == [4608, 73_728]


def test_at_the_decoding_length_a_layers_cache_has_as_many_values_as_its_matrices():
    config = verdicts.MODELS["gpt3"][1]
    n = by_id(evidence())["gpt3-decoding"].value
    in_cache = 2 * n * config.d_model * verdicts.SEQUENCES
    biases = 9 * config.d_model + config.d_ff  # and two LayerNorms
    in_layer = layers.attention_params(config) + layers.ffn_params(config)
    assert in_cache == in_layer - biases


@pytest.mark.parametrize(("n", "word"), [(73_728, "does not hold"), (73_729, "holds")])
def test_over_half_of_the_work_in_both_models(n, word):
    """At 73,728 tokens GPT-3's share is one half exactly; BERT-base's is far above."""
    assert outcomes(models=longest(n))["own-length"] == word
    assert outcomes(long_context=n)["long-context"] == word


def test_the_clock_is_shown_and_decides_nothing():
    slow = outcomes(clock=Estimate(2.5, 2.1, 3.0), channels=CHANNELS[0])
    assert slow == outcomes()
    assert list(slow) == ["own-length", "long-context"]
