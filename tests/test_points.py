"""The board's points: one evaluation for every chapter, time beside the unchanged model's."""

import pytest
import torch

from efflab import points
from efflab.compression.packed import quantize_weights, with_weights


def test_the_unchanged_language_model_is_the_baseline(monkeypatch):
    monkeypatch.setattr(points, "N_WINDOWS", 2)
    model = points.language_model()
    point = points.language_point(model, repeats=3)
    assert point["bytes"] == 4 * sum(p.numel() for p in model.parameters())
    assert 0.4 < point["milliseconds"] / point["baseline_milliseconds"] < 2.5
    worse = with_weights(model, quantize_weights(model, 3))
    changed = points.language_point(worse, n_bytes=1000, repeats=1)
    assert changed["quality"] > point["quality"]
    assert changed["bytes"] == 1000


def test_known_quality_is_not_measured_again(monkeypatch):
    monkeypatch.setattr(points.evaluate, "bits_per_byte", None)
    assert points.language_point(points.language_model(), quality=1.5, repeats=1)["quality"] == 1.5


def test_the_encoder_point_is_that_of_embed(monkeypatch):
    monkeypatch.setattr(points, "N_FUNCTIONS", 20)
    model, _ = points.encoder()
    point = points.encoder_point(points.encode_with(model), 7, repeats=1)
    assert 0.8 < point["quality"] <= 1
    assert point["bytes"] == 7
    noise = points.encoder_point(lambda ids, _: torch.randn(len(ids), 384), 7, repeats=1)
    assert noise["quality"] < 0.6


@pytest.mark.parametrize("name", ["milliseconds", "baseline_milliseconds"])
def test_times_are_positive(name, tmp_path):
    from efflab.lab.board import Board

    point = dict(technique="t", model="MiniLM-L6", bytes=1, quality=1)
    times = dict(milliseconds=1.0, baseline_milliseconds=1.0) | {name: -1.0}
    with pytest.raises(ValueError, match=f"{name}=-1"):
        Board(tmp_path / "none.json").add(**point, **times)
