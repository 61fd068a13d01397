"""Notebook 11's exercises: what is asked, and how an answer is judged."""

import torch

from efflab.compression import pruning, sparse
from efflab.config import ModelConfig
from efflab.lab import Exercise, tr
from efflab.model import Transformer
from efflab_rooms.pruning import measure


def _check_mask(answer):
    rng = torch.Generator().manual_seed(0)
    for shape, ratio in (((4, 5), 0.5), ((16, 8), 0.9), ((3, 3), 0.0), ((2, 6), 1.0)):
        weight = torch.randn(shape, generator=rng)
        what = f"magnitude_mask({shape[0]} x {shape[1]}, {ratio})"
        yield what, pruning.magnitude_mask(weight, ratio), answer(weight, ratio)
    equal = torch.as_tensor(answer(torch.ones(2, 3), 0.5)).bool()
    yield tr("weights removed from six equal ones, ratio 0.5"), 3, int((~equal).sum())


def _check_flops(answer):
    config = ModelConfig(1, 6, 192, 768, 8, 512, causal=True)
    model = Transformer(config)
    for heads, neurons, T in (((), 0, 128), ((0, 1), 192, 128), ((0, 2, 3, 5), 700, 512)):
        pruned = pruning.prune_ffn(pruning.prune_heads(model, {0: heads}), {0: range(neurons)})
        n_heads, n_neurons = 6 - len(heads), 768 - neurons
        logits = 2 * T * 192 * 8
        expected = pruning.forward_flops(pruned, T) - logits
        what = f"layer_flops({T}, 192, {n_heads}, 32, {n_neurons})"
        yield what, expected, answer(T, 192, n_heads, 32, n_neurons)


def _check_break_even(answer):
    for value, index in ((4, 4), (2, 4), (2, 2), (1, 4)):
        what = f"break_even({value}, {index})"
        yield what, sparse.break_even(value, index), answer(value, index)


N_HEADS = 9  # a quarter of the 36


def _check_heads(answer):
    heads = {layer: sorted(set(units)) for layer, units in dict(answer).items()}
    yield tr("heads removed"), N_HEADS, sum(map(len, heads.values()))
    ranked = pruning.least_important(measure.ablation(), N_HEADS / 36)
    ours, theirs = measure.loss_without(ranked), measure.loss_without(heads)
    losses = dict(theirs=f"{theirs:.3f}", ours=f"{ours:.3f}")
    what = tr("loss {theirs}, against {ours} by single ablations", **losses)
    yield what, True, theirs < ours


EXERCISES = {
    "11-1": Exercise(_check_mask),
    "11-2": Exercise(_check_flops),
    "11-3": Exercise(_check_break_even),
    "11-4": Exercise(_check_heads),
}
