"""A model's card: its numbers are the formulas', its text fits a screen, bad input is one line."""

import json
from dataclasses import replace

import pytest

from efflab import cost, inference
from efflab.advice import chapters
from efflab.advice.card import card, dtype_of, read_card
from efflab.advice.card_report import report
from efflab.base.words import translate
from efflab.cli import main
from efflab.config import PRESETS, Attention
from efflab.devices import DEVICES, own_device
from efflab.publishing.catalog import catalog

KEYS = {"name", "model_type", "params", "active_params", "weight_bytes", "kv_bytes_per_token"}
ROW = {"device", "max_context", "max_batch", "prefill_seconds", "decode_tokens_per_second"}
TALLEST = 42
"""Lines of a card with experts, windows and all: a screen and a little."""


def rows(name):
    return {row["device"]: row for row in read_card(name)["devices"]}


# --- Numbers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_a_cards_numbers_are_the_formulas(name):
    config, found = PRESETS[name], read_card(name)
    assert found.keys() >= KEYS | {"devices"}
    assert found["params"] == cost.num_params(config)
    assert found["active_params"] == cost.active_params(config)
    assert found["weight_bytes"] == {f: cost.weight_bytes(config, f) for f in cost.FORMATS}
    per_token = cost.kv_cache_bytes(config, 1) if config.causal else None
    assert found["kv_bytes_per_token"] == per_token
    assert found["training_bytes"]["states"] == 16 * found["params"]
    names = [n for n, device in DEVICES.items() if device.memory_bytes]
    assert [row["device"] for row in found["devices"]] == names
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("name", [name for name, config in PRESETS.items() if config.causal])
def test_context_and_batch_fill_the_memory_and_no_more(name):
    config, tokens = PRESETS[name], min(4096, PRESETS[name].max_len)
    weights = cost.weight_bytes(config, "bf16")
    for device, row in rows(name).items():
        room = DEVICES[device].memory_bytes - weights
        longest, batch = row["max_context"], row["max_batch"]
        assert 0 <= longest <= config.max_len
        if longest:
            assert cost.kv_cache_bytes(config, longest) <= room
        if longest < config.max_len:
            assert cost.kv_cache_bytes(config, longest + 1) > room
        assert batch == 0 or cost.kv_cache_bytes(config, tokens, batch) <= room
        assert cost.kv_cache_bytes(config, tokens, batch + 1) > room
        assert (row["prefill_seconds"] is None) == (batch == 0)
        assert (row["decode_tokens_per_second"] is None) == (batch == 0)


def test_the_bounds_by_hand():
    """Qwen3-8B on an H100: a prompt by its FLOPs, a token by the bytes of weights and cache."""
    config, row = PRESETS["qwen3-8b"], rows("qwen3-8b")["H100 SXM"]
    table = 151936 * 4096
    read = 2 * (cost.num_params(config) - table) + 4096 * 36 * 2 * 8 * 128 * 2
    assert row["decode_tokens_per_second"] == pytest.approx(3350e9 / read)
    maps = 36 * (2 * 4096 * 128 * (32 + 8) + 3 * 4096 * 12288)
    pairs = 4096 * 4097 // 2
    flops = 2 * (4096 * maps + table) + 36 * 4 * 32 * 128 * pairs
    assert row["prefill_seconds"] == pytest.approx(flops / 989.4e12)


def test_a_latent_model_decodes_in_absorbed_form():
    big = own_device(100, 2000, 1e9)  # so fast a memory that FLOPs decide
    row = card(PRESETS["deepseek-v3"], "x", "deepseek_v3", [big])["devices"][0]
    flops = inference.decode_flops(PRESETS["deepseek-v3"], 4096, absorbed=True)
    assert row["decode_tokens_per_second"] == pytest.approx(100e12 / flops)


def test_what_does_not_apply_to_an_encoder_is_null():
    for row in rows("bert-base").values():
        assert row["max_context"] is row["max_batch"] is row["decode_tokens_per_second"] is None
        assert row["prefill_seconds"] > 0
    read = 2 * (cost.num_params(PRESETS["bert-base"]) - 30522 * 768)
    assert inference.prefill_bytes(PRESETS["bert-base"], 1) == read
    fast = replace(DEVICES["H100 SXM"], memory_bandwidth=1e3)
    assert card(PRESETS["bert-base"], "x", "bert", [fast])["devices"][0]["prefill_seconds"] == (
        pytest.approx(read / 1e3)
    )


def test_a_model_that_fits_nowhere_has_no_times():
    found = rows("deepseek-v3")
    assert {row["max_context"] for row in found.values()} == {0}
    assert found["H200 SXM"]["devices_for_weights"] == 9  # 1,342 GB over 151.4
    assert all(row["prefill_seconds"] is None for row in found.values())


def test_each_device_multiplies_in_the_16_bits_that_it_has():
    types = {name: dtype_of(device) for name, device in DEVICES.items()}
    assert types.pop("TPUv1") is None  # a memory that its paper does not say
    assert types.pop("V100 SXM2") == "fp16"
    assert types.pop("M4 Max") == "fp32"
    assert set(types.values()) == {"bf16"}


# --- Words -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_a_card_is_a_screen(name):
    lines = report(read_card(name)).splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= TALLEST


@pytest.mark.parametrize(
    ("name", "numbers", "words"),
    [
        ("qwen3-8b", ["01", "03", "09", "10", "12"], "a cache 4 times smaller"),
        ("gpt-oss-20b", ["01", "03", "09", "10", "12"], "the scores of 12 of 24 layers"),
        ("deepseek-v3", ["03", "04", "09", "10", "12", "13"], "cache 71 times smaller"),
        ("albert-base", ["01", "06", "09", "10"], "shared layers, in use"),
        ("gpt2", ["06", "09", "10"], "its training states fit one A100"),
        ("llama-3.1-70b", ["01", "03", "09", "10", "12", "13"], "fit A100 80GB SXM (bf16: H200"),
    ],
)
def test_techniques_follow_from_the_shape(name, numbers, words):
    found = read_card(name)["chapters"]
    assert [row["notebook"] for row in found] == numbers
    assert set(numbers) <= catalog().keys()
    assert words in " / ".join(row["text"] for row in found)


def test_a_window_as_long_as_the_text_is_none():
    config = PRESETS["gpt2"]
    for window, expected in ((64, 12), (1024, 0), (None, 0)):
        windowed = replace(config, attention=Attention(windows=(window,)))
        assert len(chapters.windows(windowed)) == expected
    assert "12 of 12 layers stop at 64 tokens" in chapters.cache(
        replace(config, attention=Attention(windows=(64,)))
    )
    two = chapters.cache(replace(config, attention=Attention(windows=(64, 128))))
    chinese = {"{ends} or {other}": "{ends} 或 {other}"}
    assert two.endswith("stop at 64 or 128 tokens")
    assert "64 或 128" in translate(two, chinese)


def test_active_parameters_are_shown_where_not_all_are():
    assert "active    4.19 billion" in report(read_card("gpt-oss-20b"))
    assert "8 of 256 experts and what all tokens share, in all but 3 layers" in " ".join(
        report(read_card("deepseek-v3")).split()
    )
    assert "active" not in report(read_card("qwen3-8b"))


# --- The command -----------------------------------------------------------------------------


def test_the_command_prints_json_and_the_readers_own_device_first(capsys):
    flags = ["--tflops", "50", "--gb", "24", "--gbps", "900"]
    assert main(["card", "qwen3-8b", "--json", *flags]) == 0
    found = json.loads(capsys.readouterr().out)
    own = found["devices"][0]
    assert own.keys() >= ROW
    assert (own["device"], own["memory_gib"]) == ("your own", 24)
    assert own["prefill_seconds"] > found["devices"][1]["prefill_seconds"] > 0
    assert main(["card", "qwen3-8b", *flags]) == 0
    assert "\nyour own" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--gb", "24"], "--tflops=None: expected a number: it takes all three flags"),
        (["--tflops", "0", "--gb", "1", "--gbps", "1"], "tflops=0.0: expected a positive number"),
        (["--tflops", "1", "--gb", "nan", "--gbps", "1"], "gb=nan: expected a finite number"),
    ],
)
def test_half_a_device_is_refused(flags, words, capsys):
    assert main(["card", "gpt2", *flags]) == 1
    assert capsys.readouterr().err == f"efflab: {words}\n"


FILES = {
    "list.json": "[1, 2]",
    "broken.json": '{"model_type": ',
    "unknown.json": '{"model_type": "no-such-model"}',
    "typeless.json": "{}",
    "text.json": '{"model_type": "gpt2", "n_layer": "12"}',
    "negative.json": '{"model_type": "gpt2", "n_layer": -12}',
    "heads.json": '{"model_type": "gpt2", "n_head": 7}',
}


@pytest.mark.parametrize("name", [*FILES, "absent.json", "weights"])
def test_bad_input_is_one_line_and_nothing_is_written(name, tmp_path, monkeypatch, capsys):
    for file, text in FILES.items():
        (tmp_path / file).write_text(text)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    assert main(["card", name]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), err[:8]) == ("", 1, "efflab: ")
    assert "expected" in err
    assert sorted(tmp_path.rglob("*")) == before


def test_what_transformers_alone_knows_is_counted_and_no_more(tmp_path, capsys):
    sizes = dict(d_model=64, d_ff=128, num_layers=2, num_heads=4, d_kv=16, vocab_size=100)
    fields = sizes | dict(model_type="t5", is_encoder_decoder=True)
    (tmp_path / "t5.json").write_text(json.dumps(fields))
    assert main(["card", str(tmp_path / "t5.json"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    attention, ffn, norms = 4 * 64 * 64, 2 * 64 * 128, 64
    encoder = 2 * (attention + ffn + 2 * norms) + norms + 32 * 4
    decoder = 2 * (2 * attention + ffn + 3 * norms) + norms + 32 * 4
    assert found["params"] == 100 * 64 + encoder + decoder
    assert found["notes"] == ["counted by transformers on the meta device"]
    rest = found.keys() - {"name", "model_type", "params", "notes"}
    assert {found[key] for key in rest} == {None}
    assert found.keys() == read_card("gpt2").keys()
    assert main(["card", str(tmp_path / "t5.json")]) == 0
    assert "Note: counted by transformers" in capsys.readouterr().out
