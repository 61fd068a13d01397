"""Configs of released models and of each family, and what is no config at all."""

import json
import re
from dataclasses import replace

import pytest

from efflab import cost, families
from efflab.base.places import ROOT
from efflab.config import PRESETS, Rope, from_hf
from efflab.families import FAMILIES, count_on_meta, family, read

RELEASED = json.loads((ROOT / "data/published/configs.json").read_text("utf-8"))
RELEASED_BY_NAME = {row["name"]: row["config"] for row in RELEASED}
LLAMA_31 = Rope(5e5, scaling="llama3", factor=8.0)
SMALL = """vocab_size 101 hidden_size 60 n_embd 60 d_model 60 dim 60 intermediate_size 37 n_inner 37
ffn_dim 37 hidden_dim 37 dff 37 ffn_hidden_size 37 num_hidden_layers 3 n_layer 3 n_layers 3
num_layers 3 num_attention_heads 6 n_head 6 n_heads 6 num_heads 6 attention_heads 6
num_key_value_heads 2 num_kv_heads 2 head_dim 14 max_position_embeddings 53 n_positions 53
max_seq_len 53 moe_intermediate_size 23 num_experts 5 num_local_experts 5 n_routed_experts 5
moe_num_experts 5 num_experts_per_tok 2 moe_topk 2 moe_k 2 n_shared_experts 3 num_shared_experts 3
moe_num_shared_experts 3 shared_expert_intermediate_size 29 shared_intermediate_size 29
intermediate_size_mlp 41 q_lora_rank 11 kv_lora_rank 13 qk_nope_head_dim 6 qk_rope_head_dim 4
v_head_dim 8 pad_token_id 1 embedding_size 17 input_embedding_size 17 word_embed_proj_dim 60
n_group 1 topk_group 1 type_vocab_size 3 first_k_dense_replace 1 moe_layer_end_index 2
rotary_dim 4""".split()
SMALL = {name: int(size) for name, size in zip(SMALL[::2], SMALL[1::2], strict=True)}
"""Sizes of which no two can be taken for one another."""
OWN = {
    "gpt_neo": dict(attention_types=[[["global", "local", "local"], 1]]),
    "dbrx": dict(
        attn_config=dict(kv_n_heads=2, rope_theta=1e4),
        ffn_config=dict(ffn_hidden_size=37, moe_num_experts=5, moe_top_k=2),
    ),
}
"""What a family needs besides."""
TOGETHER = {"internlm3": [dict(attention_bias=True, mlp_bias=True)]}
"""Options that a class takes only together."""


@pytest.mark.parametrize("row", RELEASED, ids=lambda row: row["name"])
def test_released_models(row):
    config = from_hf(row["config"])
    assert cost.num_params(config) == row["params"]
    assert cost.active_params(config) == (row["active_params"] or row["params"])
    if row["kv"] is None:
        assert not config.causal
    else:
        assert cost.kv_cache_bytes(config, 1) == row["kv_bytes_per_token_16bit"]
        assert cost.kv_cache_bytes(config, 100_000) == cache_bytes(row["kv"], 100_000)


def cache_bytes(kv, n_tokens):
    """From the published rows alone: layers that see all, and those that stop at their window."""
    a_layer = 2 * kv["elements_per_token_per_layer"]
    local = kv.get("sliding_layers", 0)
    return a_layer * (
        (kv["layers"] - local) * n_tokens + local * min(n_tokens, kv.get("window") or n_tokens)
    )


def small(kind, **options):
    """A small config of transformers' own class for that family, as a dict."""
    from transformers import AutoConfig

    known = AutoConfig.for_model(kind).to_dict()
    sizes = {name: size for name, size in SMALL.items() if name in known}
    return AutoConfig.for_model(kind, **(sizes | OWN.get(kind, {}) | options)).to_dict()


def switches(kind):
    """Each option that a family knows, on where it is off and off where it is on."""
    table = family(kind)
    names = {
        name.removeprefix("not ") for key in table.get("when", {}) for name in key.split(" & ")
    }
    names |= {"tie_word_embeddings"} if "tied" in table["fields"] else set()
    names = {name for name in names if name[0] != "_" and " == " not in name}
    return [(name, not table.get("defaults", {}).get(name, False)) for name in sorted(names)]


@pytest.mark.parametrize("kind", FAMILIES)
def test_each_family_and_option_as_transformers_counts(kind):
    options = TOGETHER.get(kind) or [{name: value} for name, value in switches(kind)]
    for option in [{}, *options]:
        fields = small(kind, **option)
        assert cost.num_params(from_hf(fields)) == count_on_meta(fields), option


def test_what_a_file_leaves_out_is_what_the_class_has():
    from transformers import CONFIG_MAPPING

    wrong = []
    for kind in FAMILIES:
        for name, ours in family(kind)["defaults"].items():
            theirs = getattr(CONFIG_MAPPING[kind], name, None)
            if theirs is not None and theirs != ours:
                wrong.append((kind, name, ours, theirs))
    assert wrong == []


def test_presets_are_their_files():
    rows = {row["name"]: from_hf(row["config"]) for row in RELEASED}
    for name, preset in (("gpt-oss-20b", "gpt-oss-20b"), ("Qwen3-8B", "qwen3-8b")):
        row = next(row for key, row in rows.items() if key.endswith(name))
        assert replace(row, attention=PRESETS[preset].attention) == PRESETS[preset]
        assert row.windows == PRESETS[preset].windows
        assert row.head_dim == PRESETS[preset].head_dim


GPT2 = dict(model_type="gpt2", n_layer=2, n_head=4, n_embd=64, vocab_size=1000)


def test_sources(tmp_path):
    path = tmp_path / "small" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(GPT2))
    for source in (path, str(path), path.parent, str(path.parent), GPT2):
        assert from_hf(source) == from_hf(GPT2)
    assert read(path).name == read(path.parent).name == "small"
    assert read(GPT2).note == ""


def llama(**more):
    sizes = dict(num_hidden_layers=2, num_attention_heads=4, hidden_size=64, intermediate_size=96)
    return dict(model_type="llama", vocab_size=1000, **sizes) | more


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (llama(hidden_size="64"), "hidden_size='64': expected an int or None, got str"),
        (llama(num_hidden_layers=-2), "num_hidden_layers=-2: expected an int of at least 1"),
        (
            llama(num_hidden_layers=10**7),
            "num_hidden_layers=10000000: expected at most 10000 layers",
        ),
        (llama(num_attention_heads=5), "num_attention_heads=5: expected a divisor of d_model=64"),
        (llama(num_key_value_heads=3), "num_key_value_heads=3: expected a divisor of n_head=4"),
        (llama(intermediate_size=None), "intermediate_size=None: expected a size, which this file"),
        (llama(hidden_act="mish"), "hidden_act='mish': expected one of 'gelu'"),
        (llama(n_adapters=3), "n_adapters=3: expected null or false: what else would cost"),
        (llama(attention_bias=1), "attention_bias=1: expected True, False or None"),
        (llama(model_type="mistral", attention_bias=True), "attention_bias=True: expected null or"),
        (dict(model_type="mpt"), "n_layers=None: expected a size"),
        (
            llama(model_type="unheard"),
            "model_type='unheard': expected a source of one of 98 ",
        ),
        (
            llama(model_type="qwen3", layer_types=["full_attention"]),
            "layer_types=.*expected 2 items",
        ),
        (llama(model_type="gemma2", layer_types=["linear"] * 2), "layer_types='linear': expected"),
        ({}, "model_type=None: expected a source of one of 98 known types, among them "),
    ],
)
def test_what_cannot_be_counted_is_refused_in_a_line(fields, message):
    with pytest.raises(ValueError, match=message) as caught:
        from_hf(fields)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_config_is_refused_in_a_line(tmp_path, monkeypatch):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(
        ValueError, match=r"a folder with a config\.json; weights alone .*not opened"
    ):
        from_hf(tmp_path)
    with pytest.raises(ValueError, match="expected a file that exists"):
        from_hf(tmp_path / "missing.json")
    path = tmp_path / "config.json"
    for text, message in (("{", "one JSON object"), ("[1]", "one JSON object")):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            from_hf(path)
    monkeypatch.setattr(families, "getaddrinfo", refuse_to_connect)
    with pytest.raises(ValueError, match=r"that can be reached \(ConnectionError\)"):
        from_hf("somebody/some-model")
    with pytest.raises(
        ValueError, match=r"source='qwen3-9b': expected one of .*'qwen3-8b'.*a path"
    ):
        from_hf("qwen3-9b")


def test_the_hub_gives_the_config_alone_and_its_cache_first(tmp_path, monkeypatch):
    path, asked = tmp_path / "config.json", []
    path.write_text(json.dumps(RELEASED[0]["config"]))

    def download(name, file):
        asked.append((name, file))
        return str(path)

    monkeypatch.setattr(families, "getaddrinfo", lambda host, port: asked.append((host, port)))
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert families.read("owner/model").name == "owner/model"
    assert asked == [("huggingface.co", 443), ("owner/model", "config.json")]
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda name, file: str(path))
    assert families.read("owner/model").model_type == "llama"
    assert len(asked) == 2


def refuse_to_connect(*arguments):
    raise ConnectionError


def test_what_was_assumed_is_said():
    reading = read(llama(model_type="yi", architectures=["LlamaForCausalLM"]))
    assert reading.model_type == "llama"
    assert reading.note == "model_type='yi' is read as 'llama', which its architectures name"
    outer = dict(model_type="llava", tie_word_embeddings=True, text_config=llama())
    reading = read(outer)
    assert reading.config == from_hf(llama(tie_word_embeddings=True))
    assert reading.note.startswith("the language model of llava alone")


def test_transformers_counts_what_is_not_known():
    t5 = dict(model_type="t5", is_encoder_decoder=True, d_model=16, d_kv=4, d_ff=32, num_layers=1)
    t5 |= dict(num_decoder_layers=1, num_heads=4, vocab_size=50)
    attention, ffn, norm, distances = 4 * 16 * 16, 2 * 16 * 32, 16, 32 * 4
    layers = 3 * attention + 2 * ffn + 5 * norm + 2 * norm + 2 * distances
    assert count_on_meta(t5) == 50 * 16 + layers
    with pytest.raises(
        ValueError, match=r"model_type='unheard': expected a source of one of \d{3} known"
    ):
        count_on_meta(dict(model_type="unheard"))


def test_a_granite_has_no_weights_in_the_plain_model():
    from transformers import GraniteConfig, GraniteModel

    from efflab.pretrained import from_transformers

    model = GraniteModel(GraniteConfig(**{k: v for k, v in llama().items() if k != "model_type"}))
    with pytest.raises(ValueError, match="model_type='granite': expected one of 'bert', 'gpt2'"):
        from_transformers(model)


ROPES = [
    (dict(rope_theta=5e5), Rope(5e5)),
    (dict(rope_scaling={"type": "linear", "factor": 4.0}), Rope(scaling="linear", factor=4.0)),
    (dict(rope_parameters={"rope_type": "default", "rope_theta": 50}), Rope(50)),
    (dict(model_type="gemma3_text"), Rope(1e6, local_base=1e4)),
    (
        dict(
            model_type="gemma3_text",
            rope_parameters={
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 7.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 5.0},
            },
        ),
        Rope(7.0, local_base=5.0, scaling="linear", factor=8.0),
    ),
]


@pytest.mark.parametrize(("fields", "expected"), ROPES)
def test_positions_turn_as_the_file_says(fields, expected):
    assert from_hf(llama(**fields)).rope == expected
    assert from_hf(RELEASED_BY_NAME["meta-llama/Llama-3.1-70B"]).rope == LLAMA_31


def test_a_wrong_base_is_named():
    with pytest.raises(ValueError, match="base=-1: expected a positive number"):
        from_hf(llama(rope_theta=-1))


SIZES = dict(hidden_size=64, num_hidden_layers=4, num_attention_heads=4, intermediate_size=128)
SIZES |= dict(vocab_size=100, max_position_embeddings=64)


@pytest.mark.parametrize(
    ("kind", "changes", "name"),
    [
        ("deepseek_v2", dict(n_routed_experts=4), "num_experts_per_tok"),
        ("deepseek_v3", dict(kv_lora_rank=None), "kv_lora_rank"),
        ("llama", dict(hidden_act=None), "hidden_act"),
        ("qwen2", dict(use_sliding_window=True, max_window_layers=None), "max_window_layers"),
        ("qwen2", dict(use_sliding_window=True, max_window_layers="x"), "max_window_layers"),
        ("modernbert", dict(global_attn_every_n_layers=0), "global_attn_every_n_layers"),
        ("modernbert", dict(global_attn_every_n_layers=None), "global_attn_every_n_layers"),
        ("granite_swa", dict(window_pattern=0), "window_pattern"),
        ("granite_swa", dict(window_pattern=None), "window_pattern"),
        ("gpt_neo", dict(attention_types=[]), "attention_types"),
        ("llama", dict(rope_parameters={"full_attention": 5}), "rope_parameters.full_attention"),
        ("gemma3_text", dict(rope_theta={}), "rope_theta"),
        ("gemma3_text", dict(rope_parameters={"rope_theta": {"a": 1}}), "rope_theta"),
        ("qwen3_moe", dict(mlp_only_layers=["1"]), "mlp_only_layers"),
        ("qwen3_moe", dict(mlp_only_layers=[4]), "mlp_only_layers"),
        ("llama4_text", dict(moe_layers=[9]), "moe_layers"),
    ],
)
def test_a_broken_field_is_named_as_the_file_names_it(kind, changes, name):
    with pytest.raises(ValueError, match=f"^{re.escape(name)}="):
        families.read(SIZES | dict(model_type=kind) | changes)


def test_the_home_of_nobody_is_no_file():
    with pytest.raises(ValueError, match="source='~nobody123/x': expected a file that exists"):
        families.load("~nobody123/x")
