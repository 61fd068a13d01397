"""The plain Transformer against `transformers`, its own invariants, and its errors."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from efflab import pretrained
from efflab.config import ModelConfig
from efflab.model import (
    Attention,
    Transformer,
    attention_weights,
    attention_written_out,
    probabilities,
)

GPT = ModelConfig(2, 4, 32, 64, 50, 16, causal=True)
BERT = ModelConfig(2, 4, 32, 64, 50, 16, type_vocab=2, pooler=True)


def make(config, seed=0):
    torch.manual_seed(seed)
    return Transformer(config).eval()


def tokens(batch, length, vocab=50, seed=1):
    return torch.randint(0, vocab, (batch, length), generator=torch.Generator().manual_seed(seed))


def test_attention_is_softmax_of_scaled_products():
    torch.manual_seed(0)
    layer, x = Attention(12, 3, causal=True), torch.randn(2, 5, 12)
    q, k, v = layer.heads(x)
    scores = (q @ k.transpose(-1, -2)) / 4**0.5
    scores = scores.masked_fill(~torch.ones(5, 5, dtype=torch.bool).tril(), -torch.inf)
    expected = layer.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(2, 5, 12))
    torch.testing.assert_close(layer(x), expected)


@given(st.integers(1, 15), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_a_causal_model_never_sees_the_future(cut, seed):
    model, ids = make(GPT), tokens(1, 16, seed=seed)
    changed = ids.clone()
    changed[:, cut:] = (changed[:, cut:] + 1) % 50
    torch.testing.assert_close(model(ids)[:, :cut], model(changed)[:, :cut])


def test_an_encoder_sees_both_sides():
    model, ids = make(BERT), tokens(1, 8)
    changed = ids.clone()
    changed[:, -1] = (changed[:, -1] + 1) % 50
    assert not torch.allclose(model.encode(ids)[:, 0], model.encode(changed)[:, 0])


@pytest.mark.parametrize("config", [GPT, BERT])
def test_padding_changes_nothing(config):
    model, ids = make(config), tokens(2, 6)
    padded = torch.cat([ids, torch.zeros(2, 4, dtype=torch.long)], dim=1)
    mask = torch.ones_like(padded)
    mask[:, 6:] = 0
    torch.testing.assert_close(model.encode(padded, mask)[:, :6], model.encode(ids))


def test_bert_weights_give_transformers_hidden_states():
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4)
    theirs = BertModel(BertConfig(vocab_size=60, max_position_embeddings=20, **sizes)).eval()
    ours = pretrained.from_transformers(theirs)
    ids, mask = tokens(3, 12, 60), torch.ones(3, 12, dtype=torch.long)
    mask[1, 7:] = 0
    types = tokens(3, 12, 2)
    expected = theirs(ids, attention_mask=mask, token_type_ids=types)
    hidden = ours.encode(ids, mask, types)
    visible = mask.bool()
    torch.testing.assert_close(
        hidden[visible], expected.last_hidden_state[visible], atol=1e-5, rtol=0
    )
    torch.testing.assert_close(ours.pool(hidden), expected.pooler_output, atol=1e-5, rtol=0)


def test_gpt2_weights_give_transformers_logits_and_gradients():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(n_layer=3, n_head=4, n_embd=32, vocab_size=60, n_positions=20)
    theirs = GPT2LMHeadModel(config).eval()
    ours, ids = pretrained.from_transformers(theirs), tokens(2, 20, 60)
    torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=1e-5, rtol=0)
    ours(ids).square().mean().backward()
    theirs(ids).logits.square().mean().backward()
    for mine, hers in zip(ours.layers, theirs.transformer.h, strict=True):
        expected = hers.attn.c_attn.weight.grad.T
        torch.testing.assert_close(
            mine.attention.body.qkv.weight.grad, expected, atol=1e-6, rtol=1e-4
        )


def test_from_transformers_lists_what_it_knows():
    from transformers import T5Config, T5Model

    tiny = T5Config(d_model=8, d_ff=8, num_layers=1, num_heads=1, d_kv=8, vocab_size=10)
    with pytest.raises(ValueError, match="model_type='t5': expected one of 'bert', 'gpt2'"):
        pretrained.from_transformers(T5Model(tiny))


def test_minilm_gives_transformers_embeddings():
    ours, tokenizer = pretrained.load_minilm()
    theirs, _ = pretrained.load_encoder(pretrained.minilm_folder())
    texts = [
        "Return the absolute value.",
        "Open a file and return a stream; raise OSError on failure.",
    ]
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = theirs(**inputs).last_hidden_state
    expected = pretrained.mean_pool(hidden, inputs["attention_mask"])
    torch.testing.assert_close(
        pretrained.embed(ours, tokenizer, texts), expected, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make(GPT)(torch.tensor([[50]])), r"ids: expected values in 0\.\.49, got 50\.\.50"),
        (
            lambda: make(GPT)(torch.tensor([[-1, 3]])),
            r"ids: expected values in 0\.\.49, got -1\.\.3",
        ),
        (lambda: make(GPT)(tokens(1, 17)), "sequence length=17: expected at most max_len=16"),
        (lambda: make(GPT)(tokens(1, 4)[0]), r"ids\.shape=\(4,\): expected two dimensions"),
        (lambda: make(BERT).generate(tokens(1, 4), 1), "causal=False: expected a causal model"),
        (lambda: make(GPT).encode(tokens(1, 4), None, tokens(1, 4)), "type_ids=.* no types"),
        (
            lambda: make(BERT).encode(tokens(2, 4), None, tokens(1, 4, 2)),
            r"type_ids\.shape=\(1, 4\): expected that of ids",
        ),
        (lambda: probabilities(torch.zeros(1, 5), top_k=6), "top_k=6: expected .* at most 5"),
        (lambda: make(GPT).pool(torch.zeros(1, 1, 32)), "pooler=None: expected a config"),
        (lambda: make(GPT).generate(tokens(1, 4), 1, temperature=-1), "temperature=-1: expected"),
        (lambda: make(GPT).generate(tokens(1, 4), 1, temperature=torch.nan), "temperature=nan"),
        (lambda: make(GPT).generate(tokens(1, 4), 1, temperature=torch.inf), "temperature=inf"),
        (lambda: make(GPT).generate(tokens(1, 4), 1, top_k=0), "top_k=0: expected"),
        (lambda: make(GPT).generate(tokens(1, 4), 1, top_k=-1), "top_k=-1: expected"),
        (lambda: make(GPT).generate(tokens(1, 4), 1, top_k=51), "top_k=51: expected .* 50"),
        (lambda: make(GPT).generate(tokens(1, 4), -1), "n_new=-1: expected"),
        (lambda: make(GPT).generate(tokens(1, 4), 1, seed=-1), "seed=-1: expected"),
        (lambda: make(GPT).generate(tokens(1, 4)[:, :0], 1), r"ids\.shape=\(1, 0\): expected"),
        (lambda: make(GPT).generate(tokens(1, 4)[:0], 1), r"ids\.shape=\(0, 4\): expected"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_export_and_compile_keep_the_model():
    model, ids = make(GPT), tokens(2, 8)
    exported = torch.export.export(model, (ids,)).module()
    torch.testing.assert_close(exported(ids), model(ids))


def test_greedy_generation_extends_by_the_likeliest_token():
    model, ids = make(GPT), tokens(1, 3)
    longer = model.generate(
        ids, 20, temperature=0, cache=False
    )  # past max_len, so the window slides
    assert longer.shape == (1, 23)
    assert torch.equal(longer[:, :3], ids)
    for at in (3, 10, 22):
        assert longer[0, at] == model(longer[:, max(0, at - 16) : at])[0, -1].argmax()


def test_sampling_repeats_with_its_seed_and_keeps_to_top_k():
    model, ids = make(GPT), tokens(2, 3)
    first = model.generate(ids, 8, seed=5)
    assert torch.equal(first, model.generate(ids, 8, seed=5))
    assert not torch.equal(first, model.generate(ids, 8, seed=6))
    assert torch.equal(
        model.generate(ids, 8, top_k=1, seed=5), model.generate(ids, 8, temperature=0)
    )


@pytest.mark.parametrize("temperature", [1e-300, 1e-40, 1e-30, 1e-7])
def test_the_limit_of_low_temperatures_is_greedy(temperature):
    model, ids = make(GPT), tokens(2, 3)
    model.embedding.token.weight.data *= 1e4  # no two tokens nearly as likely
    greedy = model.generate(ids, 8, temperature=0)
    assert torch.equal(model.generate(ids, 8, temperature=temperature), greedy)
    assert torch.equal(model.generate(ids, 8, temperature=temperature, top_k=3), greedy)
    assert torch.equal(model.generate(ids, 0, temperature=temperature), ids)


@pytest.mark.parametrize("share", ["attention", "ffn", "all"])
def test_shared_sub_blocks_are_one_module(share):
    layers = make(replace(BERT, share=share)).layers
    assert (layers[0].attention is layers[1].attention) == (share in ("attention", "all"))
    assert (layers[0].ffn is layers[1].ffn) == (share in ("ffn", "all"))


def test_attention_written_out_is_the_fused_kernels():
    q, k, v = torch.randn(3, 1, 4, 50, 16, generator=torch.Generator().manual_seed(0))
    expected = F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(attention_written_out(q, k, v), expected)
    assert (attention_weights(q, k).sum(-1) - 1).abs().max() < 1e-5
