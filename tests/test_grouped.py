"""Today's decoders against `transformers`: logits, gradients, generation, and files of weights."""

import json
from dataclasses import replace

import pytest
import torch
import transformers as library
from safetensors.torch import save_file

from efflab import cost, pretrained
from efflab.config import (
    PRESETS,
    Attention,
    Experts,
    FeedForward,
    Latent,
    ModelConfig,
    Norms,
    Rope,
    from_hf,
)
from efflab.conversion import RUNS
from efflab.model import Transformer

SIZES = dict(vocab_size=101, hidden_size=60, intermediate_size=37, num_hidden_layers=3)
SIZES |= dict(num_attention_heads=6, num_key_value_heads=2, head_dim=14, max_position_embeddings=64)
LLAMA_3 = dict(rope_type="llama3", rope_theta=500.0, factor=8.0, low_freq_factor=1.0)
LLAMA_3 |= dict(high_freq_factor=4.0, original_max_position_embeddings=32)
GEMMA = dict(sliding_window=8, query_pre_attn_scalar=10)
CAPS = dict(attn_logit_softcapping=2.0, final_logit_softcapping=5.0)
KINDS = ["sliding_attention", "full_attention", "sliding_attention"]
LINEAR = dict(rope_type="linear", factor=8.0)
CASES = {
    "llama": ("llama", {}),
    "llama-biases-tied": ("llama", dict(attention_bias=True, mlp_bias=True, tie_word_embeddings=1)),
    "llama-3.1": ("llama", dict(rope_parameters=LLAMA_3)),
    "llama-multi-query": ("llama", dict(num_key_value_heads=1)),
    "mistral": ("mistral", dict(sliding_window=8)),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "gemma": ("gemma", {}),
    "gemma2": ("gemma2", GEMMA | CAPS),
    "gemma3": ("gemma3_text", GEMMA | dict(sliding_window_pattern=3)),
    "gemma3-scaled": ("gemma3_text", GEMMA | dict(layer_types=KINDS, rope_scaling=LINEAR)),
    "gemma3-capped": ("gemma3_text", GEMMA | dict(final_logit_softcapping=5.0)),
}


def source(case):
    """A small model of `transformers` with weights of every size, biases and norms too."""
    kind, options = CASES[case]
    options = {k: bool(v) if k.startswith("tie") else v for k, v in options.items()}
    config = library.AutoConfig.for_model(kind, **(SIZES | options))
    torch.manual_seed(0)
    model = library.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def tokens(batch=2, length=40, seed=1):
    return torch.randint(1, 101, (batch, length), generator=torch.Generator().manual_seed(seed))


def converted(case):
    theirs = source(case)
    return theirs, pretrained.from_transformers(theirs)


@pytest.mark.parametrize("case", CASES)
def test_logits_and_gradients_are_those_of_transformers(case):
    (theirs, ours), ids = converted(case), tokens()
    expected = theirs(ids).logits
    assert expected.std() > 0.2
    torch.testing.assert_close(ours(ids), expected, atol=1e-5, rtol=1e-5)
    ours(ids).square().mean().backward()
    theirs(ids).logits.square().mean().backward()
    base = theirs.model
    pairs = [(ours.embedding.token, base.embed_tokens), (ours.final_norm, base.norm)]
    if not ours.config.tied:
        pairs.append((ours.embedding.head, theirs.lm_head))
    for mine, hers in zip(ours.layers, base.layers, strict=True):
        pairs += [(mine.attention.norm, hers.input_layernorm)]
        pairs += [(mine.attention.body.out, hers.self_attn.o_proj)]
        pairs += [
            (mine.ffn.body.gate, hers.mlp.gate_proj),
            (mine.ffn.body.down, hers.mlp.down_proj),
        ]
        if ours.config.attention.qk_norm == "head":
            pairs += [(mine.attention.body.q_norm, hers.self_attn.q_norm)]
            pairs += [(mine.attention.body.k_norm, hers.self_attn.k_norm)]
        if ours.config.norms.per_layer == 4:
            pairs += [(mine.attention.norm_after, hers.post_attention_layernorm)]
            pairs += [(mine.ffn.norm_after, hers.post_feedforward_layernorm)]
        maps = (hers.self_attn.q_proj, hers.self_attn.k_proj, hers.self_attn.v_proj)
        expected = torch.cat([part.weight.grad for part in maps])
        mine = mine.attention.body.qkv.weight.grad
        torch.testing.assert_close(mine, expected, atol=1e-5, rtol=1e-4)
    for mine, hers in pairs:
        torch.testing.assert_close(mine.weight.grad, hers.weight.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_parameters_and_bytes_of_the_cache_are_as_costed(case):
    _, ours = converted(case)
    assert sum(p.numel() for p in ours.parameters()) == cost.num_params(ours.config)
    for n_tokens in (1, 5, 8, 9, 40):
        cache = ours.new_cache()
        ours(tokens(2, n_tokens), cache=cache)
        expected = cost.kv_cache_bytes(ours.config, n_tokens, 2, value_bytes=4)
        assert cache.nbytes == expected


@pytest.mark.parametrize("case", CASES)
def test_a_cache_gives_the_logits_of_the_whole_text(case):
    (theirs, ours), ids = converted(case), tokens()
    whole, cache = ours(ids), ours.new_cache()
    parts = [ours(part, cache=cache) for part in ids.split([1, 4, 11, 1, 1, 3, 19], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=1e-5)
    assert cache.n_seen == 40
    prompt = ids[:1, :20]
    options = dict(attention_mask=torch.ones_like(prompt), max_new_tokens=30, eos_token_id=None)
    expected = theirs.generate(prompt, do_sample=False, pad_token_id=0, **options)
    assert torch.equal(ours.generate(prompt, 30, temperature=0), expected)
    assert torch.equal(ours.generate(prompt, 30, temperature=0, cache=False), expected)


def test_every_family_that_runs_is_tested():
    assert {kind for kind, _ in CASES.values()} == set(RUNS)


@pytest.mark.parametrize("case", ["llama-3.1", "qwen3", "gemma3"])
@pytest.mark.parametrize("size", ["1GB", "20KB"])
def test_files_of_weights_are_loaded_whole(case, size, tmp_path):
    theirs, ids = source(case), tokens()
    theirs.save_pretrained(tmp_path, max_shard_size=size)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 3) == (size == "20KB")
    ours = pretrained.load_decoder(tmp_path)
    torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=1e-5, rtol=1e-5)
    assert ours.config == from_hf(tmp_path)


def test_files_in_16_bits_are_computed_in_32(tmp_path):
    ids = tokens()
    source("gemma3").bfloat16().save_pretrained(tmp_path)
    theirs = library.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ours = pretrained.load_decoder(tmp_path)
    torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=1e-5, rtol=1e-5)


def without_a_shard(folder):
    min(folder.glob("*.safetensors")).unlink()


def with_another_tensor(folder):
    path = min(folder.glob("*.safetensors"))
    save_file({"model.layers.0.adapter.weight": torch.zeros(1)}, path)


def outside(folder):
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"lm_head.weight": "../other.safetensors"}}))


def without_a_map(folder):
    (folder / "model.safetensors.index.json").write_text("{}")


def with_a_list(folder):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": 5}}))


def both_ways(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"use_bidirectional_attention": True}))


def of_another_family(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "granite"}))


def with_yarn(folder):
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"]["rope_type"] = "yarn"
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_a_shard, r"model-00001-of-\d+\.safetensors is missing; fetch the model anew"),
        (with_another_tensor, "tensors='layers.0.adapter.weight': expected weights of llama alone"),
        (outside, "weight_map='../other.safetensors': expected files of the same folder"),
        (without_a_map, "weight_map=None: expected a dict"),
        (with_a_list, r"weight_map\['a'\]=5: expected a text"),
        (both_ways, "use_bidirectional_attention=True: expected false"),
        (of_another_family, "model_type='granite': expected one of 'llama', 'mistral'"),
        (with_yarn, "rope.scaling='yarn': expected 'none' or 'linear' or 'llama3'"),
    ],
)
def test_a_folder_that_is_not_whole_or_not_ours_is_refused(change, message, tmp_path):
    source("llama").save_pretrained(tmp_path, max_shard_size="20KB")
    change(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        pretrained.load_decoder(tmp_path)


PLAIN = ModelConfig(2, 4, 32, 64, 50, 16, causal=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(experts=Experts(4, 2, 8)), "^experts=Experts"),
        (dict(attention=Attention(latent=Latent(8, 4, 2, 4))), "^attention.latent=Latent"),
        (dict(attention=Attention(sinks=True)), "^attention.sinks=True: expected False"),
        (
            dict(attention=Attention(qk_norm="width")),
            "^attention.qk_norm='width': expected 'none' ",
        ),
        (dict(positions="alibi"), "^positions='alibi': expected 'learned' or 'rotary'"),
        (dict(rope=Rope(scaling="yarn")), "^rope.scaling='yarn': expected"),
        (dict(norms=Norms(per_layer=1)), "^norms.per_layer=1: expected 2 or 4"),
        (dict(norms=Norms(per_layer=4), norm_first=False), "^norms.per_layer=4: expected 2 where"),
        (
            dict(attention=Attention(windows=(4,)), causal=False),
            "^attention.windows=.4,.: expected",
        ),
        (dict(attention=Attention(windows=(4, None)), share="all"), "^attention.windows="),
        (dict(activation="xielu"), "^activation='xielu': expected one of"),
        (dict(parallel=True), "^parallel=True: expected False"),
        (
            dict(attention=Attention(head_dim=7), positions="rotary"),
            "^head_dim=7: expected an even",
        ),
    ],
)
def test_what_it_does_not_compute_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        Transformer(replace(PLAIN, **change))


@pytest.mark.parametrize("name", ["deepseek-v3", "gpt-oss-20b"])
def test_presets_that_need_a_technique_are_refused_at_once(name):
    with pytest.raises(ValueError, match=r"^(experts|attention\.latent)="):
        Transformer(PRESETS[name])


@pytest.mark.parametrize(
    "change",
    [
        dict(attention=Attention(n_kv_head=2, windows=(3, None)), feed_forward=FeedForward(True)),
        dict(attention=Attention(bias="out"), norms=Norms(bias=False), tied=False, d_embed=8),
        dict(attention=Attention(qk_norm="head", head_dim=10), norms=Norms(per_layer=4)),
        dict(attention=Attention(qk_norm="head", qk_norm_bias=True), scaled_embedding=True),
        dict(positions="rotary", causal=False, feed_forward=FeedForward(bias=False)),
        dict(positions="rotary", share="all", norms=Norms("rms")),
    ],
)
def test_other_mixtures_are_counted_learn_and_are_exported(change):
    model, ids = Transformer(replace(PLAIN, **change)), tokens(2, 16) % 50
    assert sum(p.numel() for p in model.parameters()) == cost.num_params(model.config)
    model(ids).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    exported = torch.export.export(model.eval(), (ids,)).module()
    torch.testing.assert_close(exported(ids), model(ids))


def test_a_model_that_a_card_cannot_describe_is_not_saved(tmp_path):
    model = Transformer(replace(PLAIN, positions="rotary", rope=Rope(100.0)))
    with pytest.raises(ValueError, match=r"^model.config.positions=.rotary.: expected its default"):
        pretrained.save_checkpoint(model, tmp_path / "a.safetensors", {})
    assert list(tmp_path.iterdir()) == []
