"""Notebook 03's exercises: what is asked, and how an answer is judged."""

from efflab.lab import Exercise
from efflab.structure.window import visible_pairs, window_mask


def _causal_pairs(answer):
    for n, w in ((1, 0), (8, 0), (8, 3), (100, 20), (16384, 128), (5, 9)):
        yield f"causal_pairs({n}, {w})", visible_pairs(n, w, causal=True), answer(n, w)


def _window_and_global(answer):
    for n, w, g in ((6, 1, 1), (10, 2, 0), (10, 0, 3), (7, 9, 1)):
        mask = window_mask(n, w)
        mask[:g] = mask[:, :g] = True
        yield f"mask({n}, {w}, {g})", mask.numpy(), answer(n, w, g)


EXERCISES = {
    "03-1": Exercise(_causal_pairs),
    "03-2": Exercise(64, tolerance=0),
    "03-3": Exercise(_window_and_global),
}
