"""The shape of a Transformer, and the released models' shapes by name. No torch here."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from efflab.arguments import check_module
from efflab.blocks import Attention as Attention
from efflab.blocks import Experts as Experts
from efflab.blocks import FeedForward as FeedForward
from efflab.blocks import Latent as Latent
from efflab.blocks import Norms as Norms
from efflab.blocks import Rope as Rope
from efflab.errors import require, require_one_of, require_positive
from efflab.rules import Count, Positive, Size

SHARING = ("none", "attention", "ffn", "all")
ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "silu")
COUNTED_ACTIVATIONS = (*ACTIVATIONS, "relu2", "xielu")
POSITIONS = ("learned", "rotary", "alibi", "relative", "fixed")
EMBED_MAPS = ("in", "both")


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides a Transformer's parameters and arithmetic.

    Sizes are counts of layers, heads, channels, tokens. `d_embed` (ALBERT's factorized embedding)
    is the width of the token table, projected to `d_model` where the two differ; None means
    `d_model`; `embed_maps` "in": by a map with a bias, "both": there and back without (OPT).
    `share` says which sub-block, with its own LayerNorm, all layers have in common.
    `norm_first` None means as `causal`: GPT-like decoders normalize first and once more at the
    end, BERT-like encoders normalize the embeddings and after each sub-block. `positions`: how a
    token knows its place, "learned" and "relative" by a table (the latter with a norm), of
    `position_rows` if not of `max_len`. `tied`: the
    output is the token table; else it has weights of its own, with a bias if `head_bias`.
    `parallel`: attention and feed-forward read the same input (Wang and Komatsuzaki 2021).
    `scaled_embedding`: tokens' rows are multiplied by the root of `d_model`; `logit_cap` c: logits
    are c tanh(logit / c) (Gemma Team 2024).

    >>> ModelConfig(2, 4, 64, 256, 1000, 128, causal=True).head_dim
    16
    """

    n_layer: Size
    n_head: Size
    d_model: Size
    d_ff: Size
    vocab_size: Size
    max_len: Size
    causal: bool = field(default=False, kw_only=True)
    d_embed: Size | None = field(default=None, kw_only=True)
    embed_maps: str = field(default="in", kw_only=True)
    share: str = field(default="none", kw_only=True)
    type_vocab: Count = field(default=0, kw_only=True)
    pooler: bool = field(default=False, kw_only=True)
    norm_first: bool | None = field(default=None, kw_only=True)
    activation: str = field(default="gelu", kw_only=True)
    norm_eps: float = field(default=1e-5, kw_only=True)
    attention: Attention = field(default=Attention(), kw_only=True)
    feed_forward: FeedForward = field(default=FeedForward(), kw_only=True)
    experts: Experts | None = field(default=None, kw_only=True)
    norms: Norms = field(default=Norms(), kw_only=True)
    positions: str = field(default="learned", kw_only=True)
    position_rows: Size | None = field(default=None, kw_only=True)
    tied: bool = field(default=True, kw_only=True)
    head_bias: bool = field(default=False, kw_only=True)
    parallel: bool = field(default=False, kw_only=True)
    rope: Rope = field(default=Rope(), kw_only=True)
    scaled_embedding: bool = field(default=False, kw_only=True)
    logit_cap: Positive | None = field(default=None, kw_only=True)

    def __post_init__(self):
        own_dim = self.attention.head_dim is not None or self.attention.latent is not None
        divides = own_dim or self.d_model % self.n_head == 0
        require(divides, "n_head", self.n_head, f"a divisor of d_model={self.d_model}")
        divides = self.n_head % self.n_kv_head == 0
        require(divides, "n_kv_head", self.n_kv_head, f"a divisor of n_head={self.n_head}")
        require_one_of("share", self.share, SHARING)
        require_one_of("embed_maps", self.embed_maps, EMBED_MAPS)
        require_one_of("activation", self.activation, COUNTED_ACTIVATIONS)
        require_one_of("positions", self.positions, POSITIONS)
        require_positive("norm_eps", self.norm_eps)

    @property
    def head_dim(self) -> int:
        """Channels of one head."""
        return self.attention.head_dim or self.d_model // self.n_head

    @property
    def n_kv_head(self) -> int:
        """Heads of keys and values."""
        return self.attention.n_kv_head or self.n_head

    @property
    def embed_dim(self) -> int:
        """Width of the embedding tables: `d_embed`, or `d_model` where that is None."""
        return self.d_embed or self.d_model

    @property
    def is_norm_first(self) -> bool:
        """`norm_first` with its default resolved."""
        return self.causal if self.norm_first is None else self.norm_first

    @property
    def windows(self) -> tuple[int | None, ...]:
        """Each layer's window, None where a token sees all keys."""
        cycle = self.attention.windows
        return tuple(cycle[layer % len(cycle)] for layer in range(self.n_layer))

    @property
    def n_expert_layers(self) -> int:
        """Layers with experts."""
        if self.experts is None:
            return 0
        return self.n_layer - sum(layer < self.n_layer for layer in set(self.experts.dense_layers))

    @property
    def extensions(self) -> tuple[str, ...]:
        """The fields in which it is more than a plain Transformer (`efflab.model.Transformer`)."""
        names = "attention feed_forward experts norms positions position_rows".split()
        names += "tied head_bias parallel embed_maps rope scaled_embedding logit_cap".split()
        defaults = {item.name: item.default for item in fields(self)}
        return tuple(name for name in names if getattr(self, name) != defaults[name])


def from_hf(source: str | Path | Mapping) -> ModelConfig:
    """The shape in a `config.json`, its folder, its dict, or a model's on the hub: `families.read`.

    >>> from_hf(dict(model_type="gpt2", n_layer=2, n_head=4, n_embd=64, vocab_size=1000)).d_ff
    256
    """
    from efflab.families import read

    return read(source).config


def _bert(n_layer, n_head, d_model, vocab_size=30522, **options: Any) -> ModelConfig:
    """BERT's layout: d_ff = 4 d_model, 512 positions, two segment types, a pooler."""
    options = dict(type_vocab=2, pooler=True, norm_eps=1e-12) | options
    return ModelConfig(n_layer, n_head, d_model, 4 * d_model, vocab_size, 512, **options)


def _albert(n_layer, n_head, d_model, activation="gelu_tanh"):
    """ALBERT v1: 30k vocabulary, 128-wide embeddings, every layer the same weights."""
    options: dict[str, Any] = dict(d_embed=128, share="all", activation=activation)
    return _bert(n_layer, n_head, d_model, vocab_size=30000, **options)


def _gpt(n_layer, n_head, d_model, max_len=1024):
    """GPT-2's and GPT-3's layout: byte-level vocabulary of 50,257, tied head."""
    options: dict[str, Any] = dict(causal=True, activation="gelu_tanh")
    return ModelConfig(n_layer, n_head, d_model, 4 * d_model, 50257, max_len, **options)


def _llama(n_layer, n_head, d_model, d_ff, vocab_size, max_len, **options: Any) -> ModelConfig:
    """The decoder of today: grouped heads of keys, rotary positions, RMSNorm, SwiGLU, no biases."""
    attention = Attention(n_kv_head=8, head_dim=128, bias="none")
    common: dict[str, Any] = dict(causal=True, activation="silu", attention=attention, tied=False)
    common |= dict(feed_forward=FeedForward(gated=True, bias=False), norms=Norms("rms", bias=False))
    sizes = (n_layer, n_head, d_model, d_ff, vocab_size, max_len)
    return ModelConfig(*sizes, **(common | dict(positions="rotary") | options))


_LLAMA_31 = Rope(500_000.0, scaling="llama3", factor=8.0)
_QWEN3 = Attention(n_kv_head=8, head_dim=128, bias="none", qk_norm="head")
_DEEPSEEK = Attention(bias="none", latent=Latent(512, 128, 64, 128, q_rank=1536))
_GPT_OSS = Attention(n_kv_head=8, head_dim=64, windows=(128, None), sinks=True)

PRESETS: dict[str, ModelConfig] = {
    "bert-base": _bert(12, 12, 768),
    "bert-large": _bert(24, 16, 1024),
    "minilm-l6": replace(_bert(6, 12, 384), d_ff=1536),
    "albert-base": _albert(12, 12, 768),
    "albert-large": _albert(24, 16, 1024),
    "albert-xlarge": _albert(24, 16, 2048),
    "albert-xxlarge": _albert(12, 64, 4096),
    "gpt2": _gpt(12, 12, 768),
    "gpt2-medium": _gpt(24, 16, 1024),
    "gpt2-large": _gpt(36, 20, 1280),
    "gpt2-xl": _gpt(48, 25, 1600),
    "gpt3-1.3b": _gpt(24, 16, 2048, max_len=2048),
    "gpt3-6.7b": _gpt(32, 32, 4096, max_len=2048),
    "gpt3-175b": _gpt(96, 96, 12288, max_len=2048),
    "stdlib-gpt": ModelConfig(6, 6, 192, 768, 2048, 512, causal=True),
    "qwen3-8b": _llama(
        36, 32, 4096, 12288, 151936, 40960, attention=_QWEN3, norm_eps=1e-6, rope=Rope(1e6)
    ),
    "llama-3.1-70b": _llama(80, 64, 8192, 28672, 128256, 131072, rope=_LLAMA_31),
    "deepseek-v3": _llama(
        *(61, 128, 7168, 18432, 129280, 163840),
        attention=_DEEPSEEK,
        experts=Experts(256, 8, d_ff=2048, d_shared=2048, dense_layers=(0, 1, 2)),
        norm_eps=1e-6,
        rope=Rope(scaling="yarn", factor=40.0, original_len=4096),
    ),
    "gpt-oss-20b": _llama(
        *(24, 64, 2880, 2880, 201088, 131072),
        attention=_GPT_OSS,
        feed_forward=FeedForward(gated=True),
        experts=Experts(32, 4, d_ff=2880, router_bias=True),
        rope=Rope(150_000.0),
    ),
}
"""Models by name (Devlin 2019, Wang 2020, Lan 2020, Radford 2019, Brown 2020), and ours; from their
`config.json`: Qwen3 and DeepSeek-V3 (2025), Llama 3.1 (2024), gpt-oss (2025)."""


check_module(__name__)
