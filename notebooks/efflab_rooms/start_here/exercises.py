"""Notebook 00's exercises: what is asked, and how an answer is judged."""

from efflab import cost
from efflab.config import PRESETS
from efflab.lab import Exercise


def _attention_flops(answer):
    for name in ("stdlib-gpt", "bert-base", "gpt2-xl"):
        c = PRESETS[name]
        for n in (1, 512, 4096):
            expected = cost.flops_by_part(c, n)["scores"]
            actual = answer(n, c.d_model, c.n_layer)
            yield f"attention_flops({n}, {c.d_model}, {c.n_layer})", expected, actual


def _speedup(answer):
    for share, factor in ((0.5, 2), (0.3, 10), (0.9, 4), (0.0, 100), (1.0, 3)):
        expected = 1 / (1 - share + share / factor)
        yield f"speedup({share}, {factor})", expected, answer(share, factor)


EXERCISES = {
    "00-1": Exercise(16512),
    "00-2": Exercise(_attention_flops),
    "00-3": Exercise(_speedup),
}
