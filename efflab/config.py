"""The shape of a Transformer, and the released models' shapes by name. No torch here."""

from dataclasses import dataclass, field, replace
from typing import Any

from efflab.arguments import check_arguments
from efflab.errors import require, require_one_of, require_positive
from efflab.rules import Count, Size

SHARING = ("none", "attention", "ffn", "all")
ACTIVATIONS = ("gelu", "gelu_tanh", "relu")


@check_arguments
@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides a plain Transformer's parameters and arithmetic.

    Sizes are counts of layers, heads, channels, tokens. `d_embed` (ALBERT's factorized embedding)
    is the width of the token table, projected to `d_model` where the two differ; None means
    `d_model`. `share` says which sub-block, with its own LayerNorm, all layers have in common.
    `norm_first` None means as `causal`: GPT-like decoders normalize first and once more at the
    end, BERT-like encoders normalize the embeddings and after each sub-block.

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
    share: str = field(default="none", kw_only=True)
    type_vocab: Count = field(default=0, kw_only=True)
    pooler: bool = field(default=False, kw_only=True)
    norm_first: bool | None = field(default=None, kw_only=True)
    activation: str = field(default="gelu", kw_only=True)
    norm_eps: float = field(default=1e-5, kw_only=True)

    def __post_init__(self):
        divides = self.d_model % self.n_head == 0
        require(divides, "n_head", self.n_head, f"a divisor of d_model={self.d_model}")
        require_one_of("share", self.share, SHARING)
        require_one_of("activation", self.activation, ACTIVATIONS)
        require_positive("norm_eps", self.norm_eps)

    @property
    def head_dim(self) -> int:
        """Channels of one head."""
        return self.d_model // self.n_head

    @property
    def embed_dim(self) -> int:
        """Width of the embedding tables: `d_embed`, or `d_model` where that is None."""
        return self.d_embed or self.d_model

    @property
    def is_norm_first(self) -> bool:
        """`norm_first` with its default resolved."""
        return self.causal if self.norm_first is None else self.norm_first


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
}
"""Models by name (Devlin 2019, Wang 2020, Lan 2020, Radford 2019, Brown 2020), and ours."""
