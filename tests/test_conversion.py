"""What our Transformer takes over from `transformers`: whole, or refused by the option's name."""

import pytest
import torch
import transformers as library

from efflab import conversion, pretrained
from efflab.structure.sharing import from_albert

GPT2 = dict(n_layer=2, n_head=4, n_embd=32, vocab_size=60, n_positions=20)
BERT = dict(vocab_size=60, num_hidden_layers=2, num_attention_heads=4, hidden_size=32)
BERT |= dict(intermediate_size=48, max_position_embeddings=20)
MAKERS = {
    "gpt2": lambda **o: library.GPT2LMHeadModel(library.GPT2Config(**GPT2, **o)),
    "bert": lambda **o: library.BertModel(library.BertConfig(**BERT, **o)),
    "albert": lambda **o: library.AlbertModel(library.AlbertConfig(**BERT, embedding_size=8, **o)),
}


def make(kind, **options):
    """A small source with weights of every size, so that what is dropped shows."""
    torch.manual_seed(0)
    model = MAKERS[kind](attn_implementation="eager", **options).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return model


def convert(kind, source):
    return from_albert(source) if kind == "albert" else pretrained.from_transformers(source)


def other(value):
    """Another value of the same kind, or a value where there was none."""
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int | float) else "another"


def options(kind):
    """Every option of a source that is neither taken over nor known to change nothing."""
    defaults = library.AutoConfig.for_model(kind).to_dict()
    names = defaults.keys() - conversion.HARMLESS - conversion.options_of(kind)
    return [(kind, n, other(defaults[n])) for n in sorted(names) if not n.startswith("_")]


ALL = [case for kind in MAKERS for case in options(kind)]
NAMED = [
    ("gpt2", "scale_attn_weights", False),
    ("gpt2", "scale_attn_by_inverse_layer_idx", True),
    ("gpt2", "add_cross_attention", True),
    ("gpt2", "tie_word_embeddings", False),
    ("bert", "is_decoder", True),
    ("albert", "num_hidden_groups", 2),
    ("albert", "inner_group_num", 2),
]
FOREIGN = [
    ("bert", "position_embedding_type", "relative_key"),
    ("bert", "auto_map", {"AutoModel": "other.Model"}),
    ("gpt2", "pruned_heads", {0: [1]}),
    ("gpt2", "rotary_dim", 8),
]


def test_every_option_is_asked_about():
    assert all(case in ALL for case in NAMED)


@pytest.mark.parametrize(("kind", "name", "value"), ALL + FOREIGN, ids=str)
def test_an_option_without_a_counterpart_is_refused_by_name(kind, name, value):
    source = make(kind)
    setattr(source.config, name, value)
    with pytest.raises(ValueError, match=rf"^{name}="):
        convert(kind, source)


@pytest.mark.parametrize("kind", MAKERS)
def test_harmless_options_change_nothing(kind):
    ids = torch.arange(20)[None]
    exact = convert(kind, make(kind)).encode(ids)
    source = make(kind, position_embedding_type="absolute", pruned_heads={}, use_cache=False)
    source.config.chunk_size_feed_forward = 1
    source.config.reorder_and_upcast_attn = True
    for name in ("initializer_range", "hidden_dropout_prob", "resid_pdrop"):
        setattr(source.config, name, 1.0)
    assert torch.equal(convert(kind, source).encode(ids), exact)


def without_scale(source):
    source.transformer.h[0].attn.scaling = 1.0


def other_head(source):
    source.lm_head.weight = torch.nn.Parameter(source.lm_head.weight + 1)


def adapted(source):
    source.encoder.layer[1].output.dense.register_forward_hook(lambda m, i, y: y * 1.5)


def other_pooler(source):
    source.pooler.activation = torch.nn.ReLU()


def other_eps(source):
    source.embeddings.LayerNorm.eps = 0.5


def not_finite(source):
    source.embeddings.word_embeddings.weight.data[:] = torch.nan


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("gpt2", without_scale, "hidden states='off by"),
        ("gpt2", other_head, "lm_head"),
        ("bert", adapted, "hidden states"),
        ("bert", other_eps, "hidden states"),
        ("bert", other_pooler, "pooled states"),
        ("bert", not_finite, "embedding.token.weight='inf or nan inside'"),
        ("albert", other_eps, "hidden states"),
    ],
)
def test_a_source_that_computes_something_else_is_refused(kind, change, message):
    source = make(kind)
    change(source)
    with pytest.raises(ValueError, match=message):
        convert(kind, source)


def test_what_is_no_model_of_the_library_is_refused():
    with pytest.raises(TypeError, match=r"source=Linear.*: expected a PreTrainedModel"):
        pretrained.from_transformers(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("kind", MAKERS)
def test_a_source_in_training_and_in_16_bits_is_compared_in_fp32(kind):
    source = make(kind).bfloat16().train()
    model = convert(kind, source)
    assert source.training
    assert next(source.parameters()).dtype == torch.bfloat16
    exact = source.base_model.float().eval()(torch.arange(20)[None]).last_hidden_state
    torch.testing.assert_close(model.encode(torch.arange(20)[None]), exact, atol=1e-4, rtol=1e-4)
