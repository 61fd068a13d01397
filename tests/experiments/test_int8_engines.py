"""The engines' experiment: which cases, in which process, with which spread."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from efflab import pretrained
from efflab.compression import engines
from efflab.compression.engines import Engine
from efflab.experiments import int8_engines as experiment
from efflab.weights import read_tensors


def test_each_engine_is_a_case():
    assert [case["engine"] for case in experiment.cases()] == list(experiment.ENGINES)


def test_a_case_runs_in_a_process_and_fp32_is_embedded_once(monkeypatch, tmp_path):
    calls, made = [], []

    def exact(n):
        made.append(n)
        return torch.zeros(n, 2), torch.ones(n, 2)

    monkeypatch.setattr(experiment, "run_isolated", lambda *call: calls.append(call) or {})
    monkeypatch.setattr(experiment, "exact", exact)
    for engine in experiment.ENGINES[:2]:
        assert experiment.run_apart(engine, tmp_path) == {}
    assert [arguments["engine"] for _, arguments in calls] == list(experiment.ENGINES[:2])
    assert {function for function, _ in calls} == {"efflab.experiments.int8_engines:measure"}
    kept, _ = read_tensors(Path(calls[-1][1]["reference"]), "")
    assert kept["documents"].tolist() == [[1.0, 1.0]] * experiment.N_TEST
    assert made == [experiment.N_TEST]


def test_a_ratio_has_its_interval_and_the_baseline_is_one():
    def engine(name, seconds):
        return Engine(name, lambda ids, mask: time.sleep(seconds), 1)

    baseline, slower = engine("fp32", 0.002), engine("other", 0.02)
    row = experiment.spread(slower, baseline, (1, 16), 7)
    assert row["1x16"] > 2
    assert row["1x16 low"] <= row["1x16 q1"] <= row["1x16"] <= row["1x16 q3"] <= row["1x16 high"]
    row = experiment.spread(baseline, baseline, (1, 16), 7)
    assert row["1x16"] == 1
    assert row["1x16 low"] <= 1 <= row["1x16 high"]


def test_a_percentile_has_an_interval():
    values = np.linspace(0, 1, 101)
    found = experiment.percentile(values)
    assert found.mean == pytest.approx(0.05)
    assert 0 <= found.low < 0.05 < found.high < 0.2
    assert experiment.percentile(np.full(9, 0.5)).high == 0.5


def test_quality_is_paired_with_fp32_by_text():
    model, tokenizer = pretrained.load_minilm()
    exact = engines.fp32(model)
    same = experiment.quality(exact, tokenizer, 12)
    assert same["mrr less fp32"] == same["mrr less fp32 low"] == same["mrr less fp32 high"] == 0
    assert same["cosine min"] == pytest.approx(1)
    reference = [v.clone() for v in experiment.exact(12)]
    reference[0][0] = -reference[0][0]  # one text's embedding is elsewhere
    other = experiment.quality(exact, tokenizer, 12, reference)
    assert other["cosine min"] == pytest.approx(-1)
    assert other["mrr less fp32"] == pytest.approx(other["mrr"] - other["mrr fp32"])
    assert other["mrr less fp32"] > 0
    assert other["mrr less fp32 low"] <= other["mrr less fp32"] <= other["mrr less fp32 high"]
