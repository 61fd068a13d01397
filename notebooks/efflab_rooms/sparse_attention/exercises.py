"""Notebook 03's exercises: what is asked, and how an answer is judged."""

from functools import partial

import torch
import torch.nn.functional as F

from efflab import bench
from efflab.lab import Exercise, tr
from efflab.structure.window import visible_pairs, window_mask


def _causal_pairs(answer):
    for n, w in ((1, 0), (8, 0), (8, 3), (100, 20), (16384, 128), (5, 9)):
        yield f"causal_pairs({n}, {w})", visible_pairs(n, w, causal=True), answer(n, w)


def _window_and_global(answer):
    for n, w, g in ((6, 1, 1), (10, 2, 0), (10, 0, 3), (7, 9, 1)):
        mask = window_mask(n, w)
        mask[:g] = mask[:, :g] = True
        yield f"mask({n}, {w}, {g})", mask.numpy(), answer(n, w, g)


MOST_TIME = 0.5  # of full attention's


def _heads(*shape):
    return torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def _fast_window(answer):
    for n, w in ((256, 16), (300, 64), (5, 9)):
        heads = _heads(2, 3, n, 8)
        expected = F.scaled_dot_product_attention(*heads, attn_mask=window_mask(n, w)).numpy()
        yield tr("{n} tokens, a window of {w}", n=n, w=w), expected, answer(*heads, w).numpy()
    heads = _heads(1, 4, 4096, 64)
    full, own = partial(F.scaled_dot_product_attention, *heads), partial(answer, *heads, 128)
    ratio = bench.compare(full, {"own": own}, warmup=1, repeats=5).ratios["own"].mean
    what = "{ratio} of full attention's time, at most {most}"
    yield tr(what, ratio=f"{ratio:.2f}", most=MOST_TIME), True, ratio <= MOST_TIME


EXERCISES = {
    "03-1": Exercise(_causal_pairs),
    "03-2": Exercise(64, tolerance=0),
    "03-3": Exercise(_window_and_global),
    "03-4": Exercise(_fast_window),
}
