"""One more token and the room for a cache: bounds by hand, what techniques do, any model."""

import json
import math
from dataclasses import replace
from itertools import cycle

import pytest

from efflab import cost, inference
from efflab.advice import ranking, serving
from efflab.advice.case import BUDGETS, SERVING, Case
from efflab.advice.ranking import advise
from efflab.advice.serving import LONGEST, Served
from efflab.base.places import DATA_DIR
from efflab.config import PRESETS, ModelConfig
from efflab.data import read_published
from efflab.devices import DEVICES

A100, SMALL = "A100 80GB SXM", "A100 40GB"
DECODERS = [name for name, config in PRESETS.items() if config.causal]
PLAIN = ModelConfig(4, 8, 512, 2048, 1000, 8192, causal=True)
ROOM = DEVICES[SMALL].memory_bytes


def rows(model, budget, device=SMALL, **options):
    return {row["technique"]: row for row in advise(model, device, budget, **options)}


def find(found, words):
    (name,) = (name for name in found if words in name)
    return found[name]


@pytest.mark.parametrize("model", DECODERS)
def test_the_baseline_is_the_bound_in_16_bits(model):
    case = Case(model, SMALL, "decode")
    plain, config = serving.baseline(case), case.config
    assert plain.read_bytes(case.tokens) == inference.decode_bytes(config, case.tokens)
    n_bytes, gpu = inference.decode_bytes(config, case.tokens), DEVICES[SMALL]
    assert plain.seconds(case) == pytest.approx(n_bytes / gpu.memory_bandwidth)  # bytes bind


@pytest.mark.parametrize("model", DECODERS)
def test_the_longest_text_fits_and_one_token_more_does_not(model):
    config = PRESETS[model]
    n, weights = Served(config).longest(ROOM), cost.weight_bytes(config, "bf16")
    assert n == 0 or weights + cost.kv_cache_bytes(config, n) <= ROOM
    assert n == LONGEST or weights + cost.kv_cache_bytes(config, n + 1) > ROOM
    assert (n == 0) == (weights > ROOM)


def test_many_multiplications_bind_where_a_device_is_slow():
    slow = replace(DEVICES[SMALL], peak_flops={"bf16": 1e9})
    case = Case(PLAIN, slow, "decode")
    seconds = inference.decode_flops(PLAIN, case.tokens) / 1e9
    assert serving.baseline(case).seconds(case) == pytest.approx(seconds)


def test_devices_share_weights_and_heads_but_no_latent_vector():
    eight, config = Served(PLAIN, n_devices=8), PRESETS["deepseek-v3"]
    assert eight.read_bytes(100) == pytest.approx(Served(PLAIN).read_bytes(100) / 8)
    few = replace(PLAIN, attention=replace(PLAIN.attention, n_kv_head=2))
    assert Served(few, n_devices=8).cache_bytes(9) == Served(few).cache_bytes(9) / 2
    assert Served(config, n_devices=8).cache_bytes(9) == Served(config).cache_bytes(9)


# --- What techniques do ----------------------------------------------------------------------


def test_formats_of_weights_read_fewer_bytes_and_leave_room():
    config, tokens = PRESETS["qwen3-8b"], 4096
    found = {budget: rows("qwen3-8b", budget) for budget in SERVING}
    cached = cost.kv_cache_bytes(config, tokens)
    whole = inference.decode_bytes(config, tokens)
    for words, bits in (("INT8, static", 8), ("GPTQ", 4)):
        assert find(found["decode"], words)["gain_low"] < 16 / bits
        assert find(found["context"], words)["gain_low"] > 1
    int8 = whole / ((whole - cached) / 2 + cached)
    assert find(found["decode"], "INT8, static")["gain_low"] == pytest.approx(int8, rel=1e-3)
    assert "16 bits already" in find(found["decode"], "16 bits")["why"]
    assert "zeros" in find(found["decode"], "masked")["why"]


def test_heads_windows_and_narrow_caches_change_the_cache_alone():
    room = {name: row["gain_low"] for name, row in rows("qwen3-8b", "context").items()}
    in_8, in_4 = (room[f"cache of keys and values in {bits} bits"] for bits in (8, 4))
    assert in_8 == pytest.approx(16 / 8.125, rel=1e-4)
    assert in_4 == pytest.approx(16 / 4.125, rel=1e-4)
    assert find(room, "window") == LONGEST / Served(PRESETS["qwen3-8b"]).longest(ROOM)
    assert find(room, "MQA") > 8  # keys and values of 8 heads, and their weights
    assert "as few heads" in find(rows("qwen3-8b", "context"), "GQA")["why"]
    assert find(rows("gpt2-xl", "context"), "GQA")["gain_low"] == pytest.approx(5, rel=0.05)
    assert "latent" in find(rows("deepseek-v3", "decode"), "MQA")["why"]


def test_shared_layers_are_read_again_for_every_token():
    decode = find(rows("qwen3-8b", "decode"), "ALBERT: one")
    assert decode["why"] == "the same bytes: every layer reads the shared weights again"
    assert find(rows("qwen3-8b", "context"), "ALBERT: one")["gain_low"] > 1.4
    for budget in ("checkpoint", "decode", "context"):
        assert "experts of its own" in find(rows("gpt-oss-20b", budget), "ALBERT: one")["why"]


def test_of_several_devices_only_tensor_parallelism_serves_a_token():
    found = rows("gpt3-6.7b", "decode", n_devices=8)
    assert find(found, "tensor parallelism")["gain_low"] == pytest.approx(8)
    for words in ("DDP", "FSDP", "best split"):
        assert find(found, words)["why"]
    assert "one device" in find(rows("gpt3-6.7b", "decode"), "tensor parallelism")["why"]
    odd = find(rows("gpt3-6.7b", "decode", n_devices=3), "tensor parallelism")
    assert odd["why"] == "3 devices do not divide 32 heads in a node of 8"
    assert "16 devices" in find(rows("gpt3-6.7b", "decode", n_devices=16), "tensor par")["why"]


def test_where_nothing_fitted_a_gain_is_in_tokens():
    found = rows("gpt3-6.7b", "context")
    assert {row["unit"] for row in found.values() if row["serves"]} == {"x"}
    huge = rows("llama-3.1-70b", "context", n_devices=2)
    assert find(huge, "GPTQ")["unit"] == " tokens"
    assert find(huge, "cache of keys and values in 4")["why"].startswith("70.6 GB of weights")
    assert find(huge, "tensor parallelism")["why"].startswith("70.6 GB")


def test_where_any_text_fits_nothing_serves():
    light = replace(PLAIN, attention=replace(PLAIN.attention, windows=(64,)))
    assert {row["why"] for row in advise(light, SMALL, "context") if row["serves"]} == set()
    assert "any text fits already" in find(rows(light, "context"), "GPTQ")["why"]


# --- Any model -------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [*BUDGETS, *SERVING])
@pytest.mark.parametrize("device", [A100, "V100 SXM2", "CPU with VNNI"])
def test_every_model_gets_rows_with_finite_gains(device, budget):
    for model in PRESETS.values():
        found = advise(model, device, budget)
        assert len(found) == (20 if budget in SERVING else 15)
        for row in found:
            ends = row["gain_low"], row["gain_high"]
            assert all(map(math.isfinite, ends)) if row["serves"] else row["why"]


def test_released_models_get_rows_with_finite_gains():
    for budget, row in zip(cycle([*BUDGETS, *SERVING]), read_configs(), strict=False):
        for found in advice_of(row, budget):
            ends = found["gain_low"], found["gain_high"]
            assert all(map(math.isfinite, ends)) if found["serves"] else found["why"]


def read_configs():
    return json.loads((DATA_DIR / "published" / "configs.json").read_text("utf-8"))


def advice_of(row, budget):
    return [
        found for name in ("RTX 4090", "TPU v5e") for found in advise(row["config"], name, budget)
    ]


def test_encoders_and_cpus_say_why_they_are_not_asked():
    assert {row["why"] for row in advise("bert-base", A100, "decode")} == {serving.ENCODER}
    found = rows("gpt2", "context", "CPU with VNNI")
    assert not any(row["serves"] for row in found.values())
    assert find(found, "GPTQ")["why"] == serving.NO_PEAKS


def test_new_techniques_do_not_enter_the_articles_budgets():
    names = {budget: set(rows("gpt2", budget)) for budget in (*BUDGETS, *SERVING)}
    assert len(names["decode"] - names["latency"]) == 5
    assert all(names[budget] == names["latency"] for budget in BUDGETS)
    assert names["context"] == names["decode"]


def test_fewer_heads_lose_what_their_paper_prints():
    for row in read_published("gqa"):
        scores = [row[name] for name in list(row)[3:]]
        assert len(scores) == 7
        assert row["average_score"] == pytest.approx(sum(scores) / 7, abs=0.2)
    gqa = find(rows("gpt2", "decode"), "GQA")
    assert gqa["lost"] == pytest.approx(100 * (1 - 47.1 / 47.2))
    assert gqa["lost_model"] == "T5-XXL, 11 B parameters"


def test_ranking_a_case_is_advising_on_it():
    assert ranking.rank(Case(PLAIN, A100, "decode")) == advise(PLAIN, A100, "decode")
