"""Notebook 16's exercises: what is asked, and how an answer is judged."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from efflab import bench, points
from efflab.compression import affine
from efflab.errors import require_int
from efflab.lab import Exercise, number, tr
from efflab.structure.window import window_mask
from efflab_rooms.decoding import measure

# --- 16-1: the cache -------------------------------------------------------------------------


def _check_cache(answer):
    ids = measure.prompt_ids(24)
    with torch.no_grad():
        whole = points.language_model()(ids)[0]
    logits = measure.decode(ids, answer)
    for t in range(len(whole)):
        yield tr("logits after {n} tokens", n=t + 1), whole[t], logits[t]


# --- 16-2: grouped heads ---------------------------------------------------------------------


def _check_grouped(answer):
    rng = torch.Generator().manual_seed(0)
    for n_head, n_group in ((4, 4), (8, 2), (6, 1)):
        q = torch.randn(2, n_head, 1, 8, generator=rng)
        k, v = torch.randn(2, 2, n_group, 5, 8, generator=rng)
        expected = scaled_dot_product_attention(q, k, v, enable_gqa=True)
        what = tr("{h} query heads, {g} key/value heads", h=n_head, g=n_group)
        yield what, expected, answer(q, k, v)


# --- 16-3: accepting a draft -----------------------------------------------------------------


def _check_accept(answer):
    rng = torch.Generator().manual_seed(0)
    p, q = torch.rand(2, 6, generator=rng).square()
    p, q = p / p.sum(), q / q.sum()
    chances, instead = zip(*(answer(p, q, token) for token in range(6)), strict=True)
    for token, chance in enumerate(chances):
        what = tr("chance that token {token} is accepted", token=token)
        yield what, min(1.0, (p[token] / q[token]).item()), float(chance)
    refused = sum(q[i] * (1 - chances[i]) * instead[i] for i in range(6))
    output = q * torch.tensor([float(chance) for chance in chances]) + refused
    yield tr("distribution of the output"), p, output


# --- 16-4: faster by a cache -----------------------------------------------------------------

TARGET, N_PROMPT, N_NEW = 2.5, 256, 16
"""Where a pass over the prompt takes but three steps' time, the plain way takes 48, a cache 19."""


def continue_plainly(ids: torch.Tensor, n_new: int) -> torch.Tensor:
    """The likeliest continuation of ids (1,T), the whole text computed anew for each token."""
    for _ in range(n_new):
        ids = torch.cat([ids, points.language_model()(ids)[:, -1:].argmax(-1)], 1)
    return ids


def _check_target(answer):
    ids = measure.prompt_ids(N_PROMPT)
    with torch.no_grad():
        ways = {"plain": lambda: continue_plainly(ids, N_NEW), "yours": lambda: answer(ids, N_NEW)}
        yield tr("{n} tokens", n=N_NEW), ways["plain"](), answer(ids, N_NEW)
        times = bench.time_interleaved(ways, warmup=0, repeats=3)
    ratio = times["plain"].ratio(times["yours"])
    values = dict(ratio=number(ratio, 2), target=number(TARGET))
    yield tr("{ratio} times faster (target: {target})", **values), True, ratio >= TARGET


# --- 16-5: a small cache ---------------------------------------------------------------------

BITS_LOST, SHARE, N_WINDOWS = 0.02, 0.3, 8


def attend_small(
    window: int = 511, sinks: int = 0, key_bits: int | None = None, value_bits: int | None = None
) -> measure.Attend:
    """Attention whose cache holds `window` tokens before each and the first `sinks`, in few bits.

    Keys get a scale for 32 tokens of a channel, values for 32 channels of a token (Liu et al. 2024,
    KIVI); None leaves them as they are.
    """
    require_int("window", window, 0, 511)
    require_int("sinks", sinks, 0, 511)
    near = window_mask(512, window, causal=True)
    visible = (near | (torch.arange(512) < sinks)).tril()

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        T = q.shape[2]
        k = k if key_bits is None else round_groups(k.mT, key_bits).mT
        v = v if value_bits is None else round_groups(v, value_bits)
        return scaled_dot_product_attention(q, k, v, attn_mask=visible[:T, :T])

    return attend


def round_groups(x: Tensor, bits: int) -> Tensor:
    """x (..., N) on affine grids of `bits`, one for each 32 values along the last dimension."""
    rows = x.reshape(-1, x.shape[-1])
    return affine.quantize(rows, bits, symmetric=False, group_size=32).dequantize().view(x.shape)


def small_share(
    window: int = 511, sinks: int = 0, key_bits: int | None = None, value_bits: int | None = None
) -> float:
    """Bytes of that cache after 512 tokens over those of the whole one in 16 bits.

    A grid of 32 values has a scale and a zero point of 16 bits each: one bit a value.
    """
    tokens = min(512, window + 1 + sinks)
    bits = sum(16 if b is None else b + 1 for b in (key_bits, value_bits))
    return tokens / 512 * bits / 32


def _check_small(answer):
    yield tr("a dict of four numbers"), True, isinstance(answer, Mapping)
    share = small_share(**answer)
    quality = points.language_quality(measure.Changed(attend_small(**answer)), N_WINDOWS)
    lost = quality.mean - points.shipped_quality()
    values = dict(lost=number(lost, 2), limit=BITS_LOST)
    yield tr("{lost} bits per byte lost (limit: {limit})", **values), True, lost <= BITS_LOST
    values = dict(share=number(100 * share, 3), limit=number(100 * SHARE))
    yield tr("{share}% of the 16-bit cache (limit: {limit}%)", **values), True, share <= SHARE


EXERCISES = {
    "16-1": Exercise(_check_cache),
    "16-2": Exercise(_check_grouped),
    "16-3": Exercise(_check_accept),
    "16-4": Exercise(_check_target),
    "16-5": Exercise(_check_small),
}
