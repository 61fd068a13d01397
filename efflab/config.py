"""The shape of a Transformer, and the released models' shapes by name. No torch here."""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from efflab.arguments import check_module
from efflab.blocks import Attention as Attention
from efflab.blocks import Experts as Experts
from efflab.blocks import FeedForward as FeedForward
from efflab.blocks import Latent as Latent
from efflab.blocks import Norms as Norms
from efflab.blocks import Rope as Rope
from efflab.errors import require, require_one_of
from efflab.rules import Count, Positive, Size

SHARING = ("none", "attention", "ffn", "all")
ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "silu")


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides a Transformer's parameters and arithmetic.

    Sizes are counts of layers, heads, channels, tokens. `d_embed` (ALBERT's factorized embedding)
    is the width of the token table, projected to `d_model` where the two differ; None means
    `d_model`; `embed_maps` "in": by a map with a bias, "both": there and back without (OPT).
    `share` says which sub-block, with its own LayerNorm, all layers have in common.
    `norm_first` None means as `causal`: GPT-like decoders normalize first and once more at the
    end, BERT-like encoders normalize the embeddings and after each sub-block. `positions`: how a
    token knows its place, "learned" and "relative" by a table (the latter with a norm) of
    `position_rows` rows, or of `max_len`. `tied`: the output is the token table; else it has
    weights of its own, with a bias if `head_bias`.
    `parallel`: attention and feed-forward read the same input (Wang and Komatsuzaki 2021).
    `scaled_embedding`: tokens' rows are multiplied by the root of their width, `embed_dim`;
    `logit_cap` c: logits are c tanh(logit / c) (Gemma Team 2024).

    >>> ModelConfig(2, 4, 64, 256, 1000, 128, causal=True).head_dim
    16
    """

    n_layer: Size
    n_head: Size
    d_model: Size
    d_ff: Size
    vocab_size: Size
    max_len: Size
    _: KW_ONLY
    causal: bool = False
    d_embed: Size | None = None
    embed_maps: Annotated[str, ("in", "both")] = "in"
    share: Annotated[str, SHARING] = "none"
    type_vocab: Count = 0
    pooler: bool = False
    norm_first: bool | None = None
    activation: str = "gelu"
    norm_eps: Positive = 1e-5
    attention: Attention = field(default=Attention())
    feed_forward: FeedForward = field(default=FeedForward())
    experts: Experts | None = None
    norms: Norms = field(default=Norms())
    positions: Annotated[str, ("learned", "rotary", "alibi", "relative", "fixed")] = "learned"
    position_rows: Size | None = None
    tied: bool = True
    head_bias: bool = False
    parallel: bool = False
    rope: Rope = field(default=Rope())
    scaled_embedding: bool = False
    logit_cap: Positive | None = None

    def __post_init__(self):
        own_dim = self.attention.head_dim is not None or self.attention.latent is not None
        divides = own_dim or self.d_model % self.n_head == 0
        allowed = "a divisor of {what}={size}"
        require(divides, "n_head", self.n_head, allowed, what="d_model", size=self.d_model)
        divides = self.n_head % self.n_kv_head == 0
        require(divides, "n_kv_head", self.n_kv_head, allowed, what="n_head", size=self.n_head)
        # not by its annotation, by which `efflab.families` would refuse a file's own names
        require_one_of("activation", self.activation, (*ACTIVATIONS, "relu2", "xielu"))

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


PARTS: dict[str, Callable] = dict(attention=Attention, latent=Latent, feed_forward=FeedForward)
PARTS |= dict(experts=Experts, norms=Norms, rope=Rope)
"""What a table of that name describes."""


def read_options(table: Mapping[str, Any]) -> dict[str, Any]:
    """A table's values, of which each table is the part of its name, and each list a tuple."""
    values = dict(table)
    for name, value in table.items():
        if isinstance(value, Mapping):
            values[name] = PARTS[name](**read_options(value))
        elif isinstance(value, list):
            values[name] = tuple(None if item == "all" else item for item in value)
    return values


def _read_presets() -> dict[str, ModelConfig]:
    tables = tomllib.loads(Path(__file__).with_name("presets.toml").read_text("utf-8"))
    presets = {}
    for name, row in tables["model"].items():
        layout = tables["layout"][row.pop("like")] if "like" in row else {}
        sizes, options = row.pop("sizes"), read_options(layout | row)
        presets[name] = ModelConfig(*sizes, **options)
    return presets


PRESETS = _read_presets()
"""Models by name, each with its source."""


check_module(__name__)
