"""Cross-layer sharing: counts as published, outputs as `transformers`, gradients summed."""

from dataclasses import replace

import pytest
import torch

from efflab import cost, data
from efflab.config import PRESETS, ModelConfig
from efflab.model import Transformer, n_parameters
from efflab.structure.sharing import from_albert, share_layers, share_qkv
from efflab.structure.window import with_windows

SMALL = ModelConfig(4, 2, 16, 32, 50, 24, type_vocab=2, pooler=True)
IDS = torch.arange(20).view(2, 10)


def shape_of(row) -> ModelConfig:
    """The paper's row as a config: 30k vocabulary, pooler only where layers are shared."""
    n_layer, d_model = row["layers"], row["hidden"]
    share = {"not-shared": "none", "all-shared": "all"}.get(row["strategy"])
    return ModelConfig(
        *(n_layer, d_model // 64, d_model, 4 * d_model, 30000, 512),
        d_embed=row["embedding"],
        share=share or row["strategy"].removeprefix("shared-"),
        type_vocab=2,
        pooler=share != "none",
    )


IRREPRODUCIBLE = {2048: 58.72, 4096: 222.60}
"""Millions that ALBERT-xlarge and xxlarge have by their architecture; the paper has 60 and 235."""


@pytest.mark.parametrize(
    "row",
    data.read_published("albert"),
    ids=lambda r: f"{r['strategy']}-{r['embedding']}-{r['hidden']}",
)
def test_counts_are_the_published_ones(row):
    millions = cost.num_params(shape_of(row)) / 1e6
    if row["hidden"] in IRREPRODUCIBLE:
        assert millions == pytest.approx(IRREPRODUCIBLE[row["hidden"]], abs=0.005)
        assert abs(millions - row["params_millions"]) > 1
    else:
        assert millions == pytest.approx(row["params_millions"], abs=1.0)


def test_albert_s_speed_as_published_follows_the_arithmetic():
    """Sharing spares no FLOPs: training slows down with depth and width, shared or not."""
    rows = [row for row in data.read_published("albert") if row["speedup_over_bert_large"]]
    flops = [cost.forward_flops(shape_of(row), 512) for row in rows]
    slower = sorted(range(len(rows)), key=lambda i: rows[i]["speedup_over_bert_large"])
    assert slower == sorted(range(len(rows)), key=lambda i: -flops[i])


@pytest.mark.parametrize("what", ["attention", "ffn", "all"])
@pytest.mark.parametrize("before", ["none", "attention", "ffn", "all"])
def test_sharing_counts_as_the_formula_and_leaves_the_original(what, before):
    model = Transformer(replace(SMALL, share=before))
    n_before = n_parameters(model)
    shared = share_layers(model, what)
    expected = what if before in ("none", what) else "all"
    assert shared.config.share == expected
    assert n_parameters(shared) == cost.num_params(shared.config)
    assert n_parameters(model) == n_before
    assert model.config.share == before


def test_shared_model_is_the_unshared_one_with_its_first_layer_repeated():
    model = Transformer(SMALL)
    shared = share_layers(model, "all")
    repeated = Transformer(SMALL)
    repeated.load_state_dict(model.state_dict())
    for layer in repeated.layers:
        layer.load_state_dict(model.layers[0].state_dict())
    torch.testing.assert_close(shared(IDS), repeated(IDS))

    shared(IDS).square().mean().backward()
    repeated(IDS).square().mean().backward()
    summed = sum(layer.ffn.body.up.weight.grad for layer in repeated.layers)
    torch.testing.assert_close(shared.layers[0].ffn.body.up.weight.grad, summed)
    summed = sum(layer.attention.norm.weight.grad for layer in repeated.layers)
    torch.testing.assert_close(shared.layers[0].attention.norm.weight.grad, summed)


@pytest.mark.parametrize("n_layers", [1, 2, 4])
def test_qkv_is_shared_in_the_first_layers_only(n_layers):
    model = Transformer(SMALL)
    shared = share_qkv(model, n_layers)
    saved = (n_layers - 1) * (3 * 16 * 16 + 3 * 16)
    assert n_parameters(model) - n_parameters(shared) == saved
    by_hand = Transformer(SMALL)
    by_hand.load_state_dict(model.state_dict())
    first = by_hand.layers[0].attention.body.qkv
    for layer in by_hand.layers[:n_layers]:
        layer.attention.body.qkv.load_state_dict(first.state_dict())
    torch.testing.assert_close(shared(IDS), by_hand(IDS))
    assert shared.config.share == "none"


def test_a_shared_model_trains_and_saves_like_any_other(tmp_path):
    from efflab import train

    def run(n_steps, checkpoint=None):
        torch.manual_seed(0)
        model = share_layers(Transformer(replace(SMALL, causal=True)), "all")
        losses = train.fit(
            model, lambda step: (IDS, IDS), n_steps, checkpoint=checkpoint, checkpoint_every=4
        )
        return model, losses

    whole, losses = run(8)
    assert losses[-1] < losses[0]
    run(8, tmp_path / "half")
    resumed, _ = run(8, tmp_path / "half")
    torch.testing.assert_close(resumed(IDS), whole(IDS))


def tiny_albert(**options):
    from transformers import AlbertConfig, AlbertModel

    config = AlbertConfig(
        **dict(
            vocab_size=50,
            embedding_size=8,
            hidden_size=16,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=32,
            max_position_embeddings=24,
        )
        | options
    )
    torch.manual_seed(0)
    albert = AlbertModel(config).eval()
    with torch.no_grad():  # norms and biases away from 1 and 0, so that a wrong one shows
        for parameter in albert.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return albert


@pytest.mark.parametrize("activation", ["gelu_new", "gelu", "relu"])
def test_outputs_equal_transformers_albert(activation):
    albert = tiny_albert(hidden_act=activation)
    model = from_albert(albert)
    mask = torch.ones_like(IDS)
    mask[1, 6:] = 0
    types = (IDS > 7).long()
    with torch.no_grad():
        theirs = albert(IDS, attention_mask=mask, token_type_ids=types)
        hidden = model.encode(IDS, mask, types)
    seen = mask.bool()
    torch.testing.assert_close(hidden[seen], theirs.last_hidden_state[seen], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.pool(hidden), theirs.pooler_output, atol=1e-5, rtol=1e-5)
    assert n_parameters(model) == albert.num_parameters() == cost.num_params(model.config)


@pytest.mark.parametrize("name", ["albert-base", "albert-large", "albert-xlarge"])
def test_presets_count_as_transformers_albert(name):
    from transformers import AlbertConfig, AlbertModel

    c = PRESETS[name]
    config = AlbertConfig(
        vocab_size=c.vocab_size,
        embedding_size=c.d_embed,
        hidden_size=c.d_model,
        num_hidden_layers=c.n_layer,
        num_attention_heads=c.n_head,
        intermediate_size=c.d_ff,
    )
    with torch.device("meta"):
        assert AlbertModel(config).num_parameters() == cost.num_params(c)


def test_sharing_saves_parameters_and_no_arithmetic():
    base = replace(PRESETS["bert-base"], vocab_size=30000)
    shared = replace(base, share="all")
    assert cost.num_params(shared) < 0.3 * cost.num_params(base)
    assert cost.forward_flops(shared, 128) == cost.forward_flops(base, 128)


def uneven():
    model = Transformer(SMALL)
    model.layers[2].attention.body.qkv = torch.nn.Linear(16, 24)
    return model


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: share_layers(Transformer(SMALL), "heads"), ValueError, "what='heads'"),
        (lambda: share_layers(Transformer(SMALL), "none"), ValueError, "what='none'"),
        (lambda: share_layers(uneven(), "all"), ValueError, "same shapes"),
        (lambda: share_qkv(Transformer(SMALL), 0), ValueError, "n_layers=0"),
        (lambda: share_qkv(Transformer(SMALL), 5), ValueError, "n_layers=5"),
        (lambda: share_qkv(Transformer(SMALL), 2.0), TypeError, "n_layers=2.0"),
        (lambda: share_qkv(uneven(), 3), ValueError, "same shapes"),
        (lambda: share_qkv(with_windows(Transformer(SMALL), 4), 2), ValueError, "SlidingAttention"),
        (lambda: from_albert(tiny_albert(num_hidden_groups=3)), ValueError, "num_hidden_groups"),
        (lambda: from_albert(tiny_albert(embedding_size=16)), ValueError, "embedding_size=16"),
    ],
)
def test_bad_arguments_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
