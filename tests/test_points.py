"""The board's points: one evaluation for every chapter, time beside the unchanged model's."""

import pytest
import torch

from efflab import evaluate, points
from efflab.compression.packed import quantize_weights, with_weights
from efflab.estimate import Estimate


def test_the_unchanged_language_model_is_the_baseline():
    model = points.language_model()
    point = points.language_point(model, repeats=1)
    assert point["bytes"] == 4 * sum(p.numel() for p in model.parameters())
    assert point["time"] == Estimate(1.0, 1.0, 1.0)
    assert point["quality"] == Estimate(*[points.shipped_quality()] * 3)


def test_a_change_is_judged_by_paired_windows_on_the_shipped_models_figure():
    model = points.language_model()
    worse = with_weights(model, quantize_weights(model, 3))
    quality = points.language_quality(worse, 2)
    pair = [evaluate.bits_per_byte(m, 2).mean for m in (worse, model)]
    added = quality.mean - points.shipped_quality()
    assert added == pytest.approx(pair[0] - pair[1])
    assert quality.low <= quality.mean <= quality.high
    point = points.language_point(worse, n_bytes=1000, quality=quality, repeats=3)
    assert point["bytes"] == 1000
    assert point["quality"] is quality
    assert 0.2 < point["time"].mean < 5


def test_the_encoder_point_is_that_of_embed(monkeypatch):
    monkeypatch.setattr(points, "N_FUNCTIONS", 20)
    points._baseline_ranks.cache_clear()
    point = points.encoder_point(points.encode_minilm, 7, repeats=1)
    assert 0.8 < point["quality"].mean <= 1
    assert point["quality"].low == point["quality"].high
    assert point["bytes"] == 7
    same = points.encoder_point(points.encode_with(points.encoder()[0]), 7, repeats=1)
    assert same["quality"] == point["quality"]
    noise = points.encoder_point(lambda ids, _: torch.randn(len(ids), 384), 7, repeats=1)
    assert noise["quality"].high < 0.6
    points._baseline_ranks.cache_clear()
