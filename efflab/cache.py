"""What a decoder keeps so that a new token costs one token's work: the keys and values so far.

Shapes: B batch, G heads of keys and values, S tokens that are kept, T new ones, D channels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from efflab.arguments import check_module
from efflab.errors import require, require_int
from efflab.rules import Count, Size
from efflab.tensors import Heads


class LayerCache:
    """One layer's keys and values (B,G,S,D) of the `n_seen` tokens so far.

    With a window S is at most the window, and `n_spare` more: as many tokens can be taken back.
    """

    def __init__(self, window: Size | None = None, n_spare: Count = 0):
        self.window, self.n_spare, self.n_seen = window, n_spare, 0
        self.keys = self.values = torch.zeros(1, 1, 0, 1)

    def extend(self, keys: Heads, values: Heads) -> tuple[Tensor, Tensor]:
        """All that the T new tokens may see, themselves included; keeps what later ones may."""
        shape, n_new = tuple(keys.shape), keys.shape[2]
        like = shape[:3]  # latent attention has two widths
        require(values.shape[:3] == like, "values.shape", tuple(values.shape), f"{like} and D")
        if self.n_kept > 0:
            B, G, _, D = self.keys.shape
            require(shape == (B, G, n_new, D), "keys.shape", shape, f"({B}, {G}, T, {D})")
            keys = torch.cat([self.keys, keys], dim=2)
            values = torch.cat([self.values, values], dim=2)
        self.n_seen += n_new
        most = self.n_seen if self.window is None else self.window + self.n_spare
        self.keys, self.values = keys[:, :, -most:], values[:, :, -most:]
        return keys, values

    def truncate(self, n_tokens: Count) -> None:
        """Forget all but the first `n_tokens`; with a window at most the last `n_spare`."""
        self.require_kept(n_tokens)
        n_dropped = self.n_seen - self.n_kept
        self.n_seen = n_tokens
        self.keys, self.values = (t[:, :, : n_tokens - n_dropped] for t in (self.keys, self.values))

    def require_kept(self, n_tokens: Count) -> None:
        """Refuse a number of tokens to which it cannot be cut: the next token sees what is gone."""
        n_dropped = self.n_seen - self.n_kept
        least = n_dropped + (self.window or 1) - 1 if n_dropped else 0
        require_int("n_tokens", n_tokens, least, self.n_seen)

    @property
    def n_kept(self) -> int:
        """Tokens whose keys and values are here: S."""
        return self.keys.shape[2]

    @property
    def nbytes(self) -> int:
        """Bytes of the keys and values that are kept."""
        return self.keys.nbytes + self.values.nbytes


class Cache:
    """A `LayerCache` for each layer, whose windows are `config.windows`."""

    def __init__(self, windows: Sequence[Size | None], n_spare: Count = 0):
        require(len(windows) > 0, "windows", windows, "one for each layer")
        self.layers = [LayerCache(window, n_spare) for window in windows]

    @property
    def n_seen(self) -> int:
        """Tokens so far: the position of the next one."""
        return self.layers[0].n_seen

    @property
    def nbytes(self) -> int:
        """Bytes of all layers; `cost.kv_cache_bytes` says how many they will be."""
        return sum(layer.nbytes for layer in self.layers)

    def truncate(self, n_tokens: Count) -> None:
        """Forget all but the first `n_tokens`, in every layer or in none."""
        for layer in self.layers:
            layer.require_kept(n_tokens)
        for layer in self.layers:
            layer.truncate(n_tokens)


def visible_keys(
    n_queries: Size, n_keys: Size, window: Size | None = None, device: torch.device | None = None
) -> Tensor:
    """Which keys (columns) each query (row) sees, True = visible.

    The last query and the last key are of the same token. A token sees itself and what came before,
    with a window at most that many keys.
    """
    own = n_keys - n_queries
    seen = torch.ones(n_queries, n_keys, dtype=torch.bool, device=device).tril(own)
    return seen if window is None else seen.triu(own - window + 1)


check_module(__name__)
