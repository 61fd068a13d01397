"""What the sub-blocks of a Transformer look like, as `efflab.config.ModelConfig` has them.

No torch here.
"""

from dataclasses import dataclass
from typing import Annotated

from efflab.arguments import check_module
from efflab.errors import require
from efflab.rules import Count, Positive, Size


@dataclass(frozen=True)
class Latent:
    """Latent attention: keys and values from a narrow vector; it and a rotary key are cached.

    A head's query and key have `nope_dim` channels and `rope_dim` rotary ones, the latter one
    key for all heads; its value has `v_dim`. `q_rank` None: queries have no narrow vector.
    (DeepSeek-AI 2024, section 2.1)
    """

    kv_rank: Size
    nope_dim: Size
    rope_dim: Size
    v_dim: Size
    q_rank: Size | None = None


@dataclass(frozen=True)
class Attention:
    """What attention looks like; by default Vaswani et al.'s, with biases.

    `n_kv_head`: heads of keys and values, each used by as many query heads (None: `n_head`).
    `head_dim`: channels of a head (None: d_model / n_head). `bias`: which maps have one.
    `qk_norm`: a norm on queries and keys: of a head's channels, with weights that all heads share
    ("head") or of its own ("each"), or of all heads' width; with a bias if `qk_norm_bias`.
    `windows`: keys that a token sees in layer 0, 1, ..., itself included, None for all; repeated
    until all layers have one. `sinks`: a learned logit a head that takes attention from the keys.
    `distance_buckets`: rows of a table of what a head adds at a distance, one for all layers.
    Scores are divided by the root of `query_dim` (None: `head_dim`), then bounded by `soft_cap`:
    c tanh(score / c) (Gemma Team 2024).
    """

    n_kv_head: Size | None = None
    head_dim: Size | None = None
    bias: Annotated[str, ("all", "qkv", "out", "none")] = "all"
    qk_norm: Annotated[str, ("none", "head", "each", "width")] = "none"
    qk_norm_bias: bool = False
    windows: tuple[Size | None, ...] = (None,)
    sinks: bool = False
    distance_buckets: Count = 0
    latent: Latent | None = None
    query_dim: Positive | None = None
    soft_cap: Positive | None = None

    def __post_init__(self):
        require(len(self.windows) > 0, "windows", self.windows, "at least one window, or (None,)")


@dataclass(frozen=True)
class FeedForward:
    """`gated`: a second map up whose output is multiplied in (SwiGLU, GeGLU: Shazeer 2020)."""

    gated: bool = False
    bias: bool = True


@dataclass(frozen=True)
class Experts:
    """Experts in place of the feed-forward (Shazeer et al. 2017): `n_active` of `n_expert` a token.

    `d_ff` is one expert's hidden width, `d_shared` that of what every token uses beside them, by
    a gate of its own if `shared_gate`. The layers in `dense_layers` have no experts. Biases are
    the feed-forward's; `router_bias` adds the router's.
    """

    n_expert: Size
    n_active: Size
    d_ff: Size
    d_shared: Count = 0
    shared_gate: bool = False
    router_bias: bool = False
    dense_layers: tuple[Count, ...] = ()

    def __post_init__(self):
        most, allowed = self.n_expert, "at most n_expert={most}"
        require(self.n_active <= most, "n_active", self.n_active, allowed, most=most)


@dataclass(frozen=True)
class Norms:
    """`kind`: LayerNorm, RMSNorm (one weight a channel, no bias), or LayerNorm without weights.

    `per_layer`: 1 where attention and feed-forward share it, 2, or 4 with one after each too.
    `embedding` and `final`: whether there is one there; None: as `norm_first` says. `first`: does
    the first layer's attention have one.
    """

    kind: Annotated[str, ("layer", "rms", "plain")] = "layer"
    bias: bool = True
    per_layer: Size = 2
    embedding: bool | None = None
    final: bool | None = None
    first: bool = True


@dataclass(frozen=True)
class Rope:
    """Rotary positions (Su et al. 2021): pair i of D channels turns by base^(-2 i / D) a token.

    `local_base`: that of layers with a window, never scaled (None: as the others). `scaling`
    "linear": all turn `factor` times slower. "llama3" (Llama 3.1): those that turn less than
    `low_turns` times within `original_len` tokens do, those above `high_turns` as before, between
    them in between.
    """

    base: Positive = 10_000.0
    local_base: Positive | None = None
    scaling: str = "none"
    factor: Positive = 1.0
    low_turns: Positive = 1.0
    high_turns: Positive = 4.0
    original_len: Size = 8192


check_module(__name__)
