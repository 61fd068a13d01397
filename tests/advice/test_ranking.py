"""Advice in order, as rows, as text and as JSON."""

import json
from itertools import pairwise

import pytest

from efflab import cli
from efflab.advice import ranking, report
from efflab.advice.case import ALL_DEVICES, BUDGETS, SERVING, Case
from efflab.advice.ranking import advise, remaining_quality
from efflab.advice.technique import Gain, Loss, Technique
from efflab.config import PRESETS
from efflab.devices import own_device

A100 = "A100 80GB SXM"


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("device", ALL_DEVICES)
def test_what_serves_stands_first_and_has_a_source(device, budget):
    for model in ("bert-base", "gpt3-1.3b", "albert-base"):
        rows = advise(model, device, budget)
        serves = [row["serves"] for row in rows]
        assert serves == sorted(serves, reverse=True)
        gains = [row["gain_low"] for row in rows if row["serves"]]
        assert all(a >= b - 1e-6 for a, b in pairwise(gains))
        for row in rows:
            assert bool(row["source"]) == row["serves"] == (row["gain_low"] is not None)
            assert bool(row["why"]) != row["serves"]


def test_every_model_gets_advice():
    assert all(advise(model, A100, "checkpoint")[0]["serves"] for model in PRESETS)


def test_the_order_follows_the_budget():
    first = {b: advise("bert-base", "CPU with VNNI", b)[0] for b in BUDGETS}
    assert first["checkpoint"]["technique"].startswith("ALBERT")
    assert first["latency"]["technique"].startswith("INT8, static")
    assert first["quality"]["lost"] == 0
    light = [
        row for row in advise("bert-base", A100, "latency") if "ALBERT: one" in row["technique"]
    ]
    assert [row["why"] for row in light] == ["the same FLOPs: every layer still runs"]
    assert light[0]["structure"]


def test_devices_and_tokens_change_the_answer():
    one, many = (advise("gpt3-1.3b", A100, "training days", n_devices=n) for n in (1, 8))
    assert not [row for row in one if row["notebook"] == "12" and row["serves"]]
    assert many[0]["notebook"] == "12"
    gains = [
        {row["technique"]: row for row in advise("gpt2", A100, "training days", seq_len=n)}
        for n in (512, 1024)
    ]
    few, more = (rows["sliding window of 64 tokens"]["gain_low"] for rows in gains)
    assert more > few


def test_quality_is_kept_up_to_a_per_cent():
    assert remaining_quality(Loss(0.5, "m", "recorded", "s")).low == 0.995
    between = remaining_quality(Loss(0.5, "m", "recorded", "s", -0.5, 1.0))
    assert (between.low, between.high) == (0.99, 1.005)
    assert remaining_quality(Loss(0.5, "m", "recorded", "s", 0.0, 1.1)).startswith(
        "it costs more than 1%"
    )
    assert "not recorded" in remaining_quality(None)


def test_a_gain_below_one_is_none():
    rows = {r["technique"]: r for r in advise("bert-base", "CPU without VNNI", "latency")}
    mixed = rows["16 bits: mixed precision"]
    assert not mixed["serves"]


@pytest.mark.parametrize(("low", "high", "serves"), [(0.5, 2.0, True), (0.5, 1.0, False)])
def test_what_may_gain_serves_with_both_ends(low, high, serves):
    gain = Gain(low, high, "computed", "a formula")
    others = dict.fromkeys(("latency", "training days", "checkpoint", *SERVING), "no")
    found = ranking.row(Technique("t", "01", others | {"memory": gain}), "memory")
    assert found["serves"] is serves
    assert (found["gain_low"], found["gain_high"]) == ((low, high) if serves else (None, None))
    assert found["why"] == ("" if serves else "it needs more here, not less")


def test_the_report_reads():
    text = report.report(Case("bert-base", A100, "checkpoint"))
    assert text.startswith(f"bert-base, 512 tokens, {A100}: what helps checkpoint?")
    assert "9.32x" in text
    assert "efflab run 01" in text
    assert "zeros are stored like any other number" in text
    many = report.heading(Case("gpt2", A100, "memory", 8))
    assert many == f"gpt2, 1024 tokens, 8 x {A100}: what helps memory?"
    row = dict(lost=None, metric=None, lost_kind=None)
    assert report.loss_text(row, {}) == "not recorded"
    exact = dict(lost=0.0, metric="equal", lost_kind="recorded")
    assert report.loss_text(exact, {}) == "equal"
    assert report.commands([dict(notebook="99"), dict(notebook="03")]) == ["efflab run 03"]


def test_the_command_prints_a_table_json_or_a_refusal(capsys):
    assert cli.main(["advise", "gpt2", A100, "latency", "--tokens", "64"]) == 0
    assert "gpt2, 64 tokens" in capsys.readouterr().out
    assert cli.main(["advise", "gpt2", A100, "memory", "--devices", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["asked"]["n_devices"] == 4
    assert found["advice"] == advise("gpt2", A100, "memory", n_devices=4)
    assert cli.main(["advise", "gpt5", A100, "memory"]) == 1
    assert "source='gpt5': expected one of" in capsys.readouterr().err


def test_a_number_of_another_model_is_said_so_once():
    text = report.report(Case("bert-base", "CPU with VNNI", "latency"))
    assert text.count("of retrieval MRR, recorded on MiniLM-L6, 23 M parameters") == 1
    assert "of bits per byte, recorded on stdlib-gpt, 3.2 M parameters" in text
    assert "INT8, dynamic (torch): recorded on MiniLM-L6, 23 M parameters, data/" in text
    assert "of average score, published for BERT of this shape" in text
    assert "0.092 % [1]" in text
    assert max(map(len, text.split("Sources")[0].splitlines())) <= 100
    computed = {row["gain_model"] for row in advise("bert-base", A100, "checkpoint")}
    assert computed == {None}
    days = advise("bert-base", A100, "training days")
    assert "BERT-large and Transformer-big" in {row["gain_model"] for row in days}


def test_the_report_says_what_gains_are_over():
    assert "over fp32 weights" in report.over(Case("gpt2", A100, "latency"))
    assert report.over(Case("bert-base", A100, "decode")).endswith("on one device")
    decode = report.over(Case("llama-3.1-70b", A100, "decode", 2))
    assert "one text on 2 devices that share it" in decode
    assert "at least 34.4 ms per token" in decode
    assert decode.endswith("141 GB of weights, 85.9 GB per device")
    context = report.report(Case("llama-3.1-70b", A100, "context"))
    assert "0 tokens fit, and the model takes 131,072" in context
    assert "2 would hold them" in context
    assert " tokens  " in context


@pytest.mark.parametrize("budget", ["latency", "training days"])
@pytest.mark.parametrize("device", [own_device(165, 24, 1008), "TPU v5e"])
def test_peaks_that_are_not_known_are_said_so(device, budget):
    why = {row["technique"]: row["why"] for row in advise("bert-base", device, budget)}
    assert why["16 bits: mixed precision"].startswith("products are in 16 bits already: no peak")
    if budget == "latency" and device != "TPU v5e":
        assert why["INT8, static (OpenVINO, NNCF)"] == "no int8 peak is known for this device"


@pytest.mark.parametrize("model", ["gpt2", "bert-base"])
def test_that_an_engine_runs_on_cpus_is_no_objection_on_one(model):
    why = {row["technique"]: row["why"] for row in advise(model, "CPU with VNNI", "decode")}
    assert why["INT8, dynamic (torch)"] == why["INT8, static (OpenVINO, NNCF)"]
    assert ("as a device of your own" in why["INT8, dynamic (torch)"]) == (model == "gpt2")


def test_weights_in_16_bits_may_serve_where_products_are_already():
    rows = {r["technique"]: r for r in advise("bert-base", "TPU v5e", "latency", seq_len=1)}
    assert rows["16 bits: mixed precision"]["gain_low"] == pytest.approx(2.0)


def test_the_command_takes_a_device_and_a_model_of_ones_own(capsys, tmp_path):
    shape = dict(model_type="gpt2", n_layer=2, n_head=4, n_embd=64, vocab_size=1000)
    (tmp_path / "config.json").write_text(json.dumps(shape))
    own = ["--tflops", "100", "--gb", "24", "--gbps", "1000"]
    assert cli.main(["advise", str(tmp_path), "my card", "decode", *own, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["asked"]["model"] == tmp_path.name
    assert found["asked"]["device"] == "my card"
    assert found["advice"][0]["technique"] == "sliding window of 64 tokens"
    assert cli.main(["advise", "gpt2", "my card", "decode", *own[:4]]) == 1
    assert "--gbps=None" in capsys.readouterr().err
    assert cli.main(["advise", "gpt2", "my card", "decode"]) == 1
    assert "device='my card': expected one of" in capsys.readouterr().err


def test_the_command_takes_the_beginning_of_a_devices_name(capsys):
    assert cli.main(["advise", "bert-base", "h200", "latency", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["asked"]["device"] == "H200 SXM"
    assert cli.main(["advise", "bert-base", "L4", "latency", "--json"]) == 0  # and not L40S
    assert json.loads(capsys.readouterr().out)["asked"]["device"] == "L4"
    assert cli.main(["advise", "bert-base", "A100", "latency"]) == 1
    assert "'A100 40GB', 'A100 80GB SXM'\n" in capsys.readouterr().err
