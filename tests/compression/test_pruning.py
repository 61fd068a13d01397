"""Pruning: masks as torch's, removed units equal masked ones, fewer FLOPs."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import prune
from torch.utils.flop_counter import FlopCounterMode

from efflab import cost, train
from efflab.compression import importance, pruning
from efflab.config import ModelConfig
from efflab.model import Transformer
from efflab.structure.linformer import linformer
from efflab.structure.sharing import share_qkv
from efflab.structure.window import with_windows

CONFIG = ModelConfig(3, 4, 32, 64, 60, 32, causal=True)
ENCODER = replace(CONFIG, causal=False, type_vocab=2, pooler=True)
HEADS = {0: [1], 1: [0, 2, 3], 2: []}
NEURONS = {0: [0, 63], 2: list(range(40))}


def model(config=CONFIG, seed=0, scale=5.0):
    """A random model whose layers matter: weights of ordinary size, biases not zero."""
    torch.manual_seed(seed)
    made = Transformer(config).eval()
    with torch.no_grad():
        for p in made.layers.parameters():
            p.mul_(scale) if p.dim() == 2 else p.add_(0.3 * torch.randn(p.shape))
    return made


def ids(n=2, length=16, seed=1):
    return torch.randint(0, 60, (n, length), generator=torch.Generator().manual_seed(seed))


# --- masks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.333, 0.5, 0.9, 0.999, 1.0])
def test_magnitude_mask_is_torchs(ratio):
    torch.manual_seed(0)
    linear = nn.Linear(37, 23)
    mask = pruning.magnitude_mask(linear.weight, ratio)
    assert (~mask).sum() == round(ratio * mask.numel())
    prune.l1_unstructured(linear, "weight", ratio)
    assert torch.equal(mask, linear.weight_mask.bool())


def test_ties_go_in_order_and_exactly_as_many_as_asked():
    mask = pruning.magnitude_mask(torch.ones(2, 4), 0.5)
    assert mask.tolist() == [[False] * 4, [True] * 4]
    kept = pruning.n_m_mask(torch.ones(1, 8), 2, 4)
    assert kept.tolist() == [[True, True, False, False] * 2]
    assert pruning.n_m_mask(torch.zeros(1, 4), 2, 4).sum() == 2


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (4, 8), (0, 4), (4, 4)])
def test_n_m_keeps_the_n_largest_of_each_m(n, m):
    weight = torch.randn(6, 16, generator=torch.Generator().manual_seed(0))
    mask = pruning.n_m_mask(weight, n, m)
    for magnitudes, kept in zip(weight.abs().view(-1, m), mask.view(-1, m), strict=True):
        assert kept.sum() == n
        if 0 < n < m:
            assert magnitudes[kept].min() > magnitudes[~kept].max()


def test_masks_cover_the_layers_maps_and_leave_the_model_alone():
    source = model()
    before = source.layers[0].ffn.body.up.weight.clone()
    masks = pruning.weight_masks(source, lambda w: pruning.magnitude_mask(w, 0.5))
    assert len(masks) == 4 * CONFIG.n_layer
    pruned = pruning.apply_masks(source, masks)
    assert torch.equal(source.layers[0].ffn.body.up.weight, before)
    zeros = pruned.layers[0].ffn.body.up.weight == 0
    assert torch.equal(zeros, ~masks["layers.0.ffn.body.up.weight"])
    assert torch.equal(pruned.embedding.token.weight, source.embedding.token.weight)
    nothing = pruning.weight_masks(source, lambda w: pruning.magnitude_mask(w, 0))
    torch.testing.assert_close(pruning.apply_masks(source, nothing)(ids()), source(ids()))


@pytest.mark.parametrize("make", [train.adamw, train.muon], ids=["adamw", "muon"])
def test_masked_weights_stay_zero_through_training_and_others_learn(make):
    net = model()
    masks = pruning.weight_masks(net, lambda w: pruning.magnitude_mask(w, 0.7))
    with pruning.hold_masks(net, masks):
        train.language_model_loss(net, ids(), ids(seed=2)).backward()
        body = net.layers[1].ffn.body.up.parametrizations.weight
        mask = masks["layers.1.ffn.body.up.weight"]
        assert (body.original.grad[~mask] == 0).all()
        assert (body.original.grad[mask] != 0).any()
        net.zero_grad(set_to_none=True)
        batches = lambda step: (ids(seed=step), ids(seed=step + 100))  # noqa: E731
        train.fit(net, batches, 5, optimizers=make(net, 1e-2))
    for name, mask in masks.items():
        weight = net.get_parameter(name)
        assert (weight[~mask] == 0).all()
    moved = net.get_parameter("layers.0.ffn.body.up.weight")
    held = masks["layers.0.ffn.body.up.weight"]
    assert not torch.equal(moved[held], model().get_parameter("layers.0.ffn.body.up.weight")[held])
    assert dict(net.named_parameters()).keys() == dict(model().named_parameters()).keys()


def test_masks_are_let_go_when_training_fails():
    net = model()
    masks = pruning.weight_masks(net, lambda w: pruning.n_m_mask(w, 2, 4))
    with pytest.raises(RuntimeError, match="stopped"), pruning.hold_masks(net, masks):
        raise RuntimeError("stopped")
    assert dict(net.named_parameters()).keys() == dict(model().named_parameters()).keys()


def test_schedule_is_cubic_and_ends_where_it_should():
    ratios = pruning.gradual_schedule(0.1, 0.9, 5)
    assert ratios[0] == pytest.approx(0.1)
    assert ratios[-1] == pytest.approx(0.9)
    for k, ratio in enumerate(ratios):
        assert ratio == pytest.approx(0.9 - 0.8 * (1 - k / 4) ** 3)
    steps = [b - a for a, b in pairwise(ratios)]
    assert steps == sorted(steps, reverse=True)
    assert pruning.gradual_schedule(0.1, 0.9, 1) == [0.9]
    assert pruning.gradual_schedule(0.5, 0.5, 3) == [0.5] * 3


# --- importance ------------------------------------------------------------------------------


def batches():
    return [(ids(4, seed=3), ids(4, seed=4)), (ids(2, seed=5), ids(2, seed=6))]


def gated_loss(net, layer, unit, gate, x, y, part):
    """The loss with one unit's output scaled by `gate`, by scaling the weights that read it."""
    body = getattr(net.layers[layer], part).body
    reader, width = (body.out, body.head_dim) if part == "attention" else (body.down, 1)
    columns = slice(unit * width, (unit + 1) * width)
    saved = reader.weight.detach().clone()
    with torch.no_grad():
        reader.weight[:, columns] *= gate
        loss = train.language_model_loss(net, x, y).item()
        reader.weight.copy_(saved)
    return loss


@pytest.mark.parametrize("part", ["attention", "ffn"])
def test_importance_is_the_gates_slope_by_finite_differences(part):
    net = model().double()
    measure = pruning.head_importance if part == "attention" else pruning.neuron_importance
    found = measure(net, batches())
    assert found.shape == (3, 4 if part == "attention" else 64)
    eps = 1e-4
    examples = [(x[i : i + 1], y[i : i + 1]) for x, y in batches() for i in range(len(x))]
    for layer, unit in ((0, 1), (2, 3)):
        slopes = []
        for x, y in examples:
            up, down = (gated_loss(net, layer, unit, g, x, y, part) for g in (1 + eps, 1 - eps))
            slopes.append(abs(up - down) / (2 * eps))
        expected = sum(slopes) / len(slopes)
        assert found[layer, unit].item() == pytest.approx(expected, rel=1e-3)


def test_a_head_that_nobody_reads_has_no_importance():
    net = model()
    with torch.no_grad():
        net.layers[1].attention.body.out.weight[:, 8:16] = 0
    scores = pruning.head_importance(net, batches())
    assert scores[1, 1] == 0
    assert scores.flatten().argmin() == 5
    assert pruning.least_important(scores, 1 / 12) == {1: [1]}
    assert all(p.grad is None for p in net.parameters())
    assert not net.layers[0].attention.body.out._forward_pre_hooks


def test_least_important_keeps_some_in_each_layer():
    scores = torch.tensor([[1.0, 2, 3, 4], [50, 60, 70, 80]])
    assert pruning.least_important(scores, 0) == {}
    assert pruning.least_important(scores, 0.5) == {0: [0, 1, 2], 1: [0]}
    assert pruning.least_important(scores, 0.5, keep=0) == {0: [0, 1, 2, 3]}
    assert pruning.least_important(scores, 1) == {0: [0, 1, 2], 1: [0, 1, 2]}
    assert pruning.least_important(torch.ones(2, 2), 0.5, keep=0) == {0: [0, 1]}


def neuron_masks(net, neurons):
    """Masks that silence these FFN neurons: zeros in the columns of `down` that read them."""
    masks = {}
    for layer, removed in neurons.items():
        mask = torch.ones_like(net.layers[layer].ffn.body.down.weight, dtype=torch.bool)
        mask[:, list(removed)] = False
        masks[f"layers.{layer}.ffn.body.down.weight"] = mask
    return masks


# --- removal ---------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [CONFIG, ENCODER], ids=["causal", "encoder"])
def test_removed_heads_and_neurons_equal_masked_ones(config):
    net = model(config)
    masks = pruning.head_masks(net, HEADS) | neuron_masks(net, NEURONS)
    masked = pruning.apply_masks(net, masks)
    removed = pruning.prune_ffn(pruning.prune_heads(net, HEADS), NEURONS)
    with torch.no_grad():
        torch.testing.assert_close(removed(ids()), masked(ids()), atol=1e-4, rtol=1e-4)
        gap = (net(ids()) - masked(ids())).abs().max()
    assert gap > 0.1
    assert [layer.attention.body.n_head for layer in removed.layers] == [3, 1, 4]
    assert removed.layers[2].ffn.body.up.weight.shape == (24, 32)
    n_before, n_after = (sum(p.numel() for p in m.parameters()) for m in (net, removed))
    assert n_before - n_after == 4 * (4 * 8 * 32 + 3 * 8) + 42 * (2 * 32 + 1)


def test_a_layer_may_lose_every_head_and_every_neuron():
    net = model()
    heads, neurons = {1: range(4)}, {0: range(64)}
    masks = pruning.head_masks(net, heads) | neuron_masks(net, neurons)
    removed = pruning.prune_ffn(pruning.prune_heads(net, heads), neurons)
    with torch.no_grad():
        expected = pruning.apply_masks(net, masks)(ids())
        torch.testing.assert_close(removed(ids()), expected, atol=1e-4, rtol=1e-4)
    train.language_model_loss(removed, ids(), ids()).backward()


def test_padding_masks_still_work_after_removal():
    net = pruning.prune_heads(model(ENCODER), HEADS)
    mask = torch.ones(2, 16)
    mask[:, 12:] = 0
    with torch.no_grad():
        torch.testing.assert_close(net.encode(ids(), mask)[:, :12], net.encode(ids()[:, :12]))


def test_pruning_twice_counts_from_what_is_left():
    net = model()
    twice = pruning.prune_heads(pruning.prune_heads(net, {0: [0]}), {0: [0]})
    once = pruning.prune_heads(net, {0: [0, 1]})
    with torch.no_grad():
        torch.testing.assert_close(twice(ids()), once(ids()))


@pytest.mark.parametrize("config", [CONFIG, ENCODER, replace(CONFIG, d_embed=16)])
def test_flops_are_the_formulas_and_torchs(config):
    net = model(config)
    assert pruning.forward_flops(net, 16, 2) == cost.forward_flops(config, 16, 2)
    pruned = pruning.prune_ffn(pruning.prune_heads(net, HEADS), NEURONS)
    counter = FlopCounterMode(display=False)
    # the CPU's flash kernel is not in torch's table; the plain products are
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        pruned(ids())
    assert pruning.forward_flops(pruned, 16, 2) == counter.get_total_flops()
    assert pruning.forward_flops(pruned, 16, 2) < pruning.forward_flops(net, 16, 2)


def test_shared_layers_compute_every_time():
    shared = replace(CONFIG, share="all")
    assert pruning.forward_flops(model(shared), 16) == cost.forward_flops(shared, 16)


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pruning.magnitude_mask(torch.ones(4), 1.1), "ratio=1.1"),
        (lambda: pruning.magnitude_mask(torch.ones(4), float("nan")), "ratio=nan"),
        (lambda: pruning.n_m_mask(torch.ones(3, 6), 2, 4), "m=4: expected a divisor"),
        (lambda: pruning.n_m_mask(torch.ones(4), 5, 4), "n=5"),
        (lambda: pruning.gradual_schedule(0.5, 0.1, 3), "final=0.1"),
        (lambda: pruning.gradual_schedule(0.1, 0.5, 0), "n_rounds=0"),
        (lambda: pruning.gradual_schedule(0.1, 0.5, 10**9), "n_rounds=1000000000"),
        (lambda: pruning.magnitude_mask(torch.tensor([torch.nan]), 0.5), "weight='nan inside'"),
        (lambda: pruning.n_m_mask(torch.tensor([1.0, torch.nan]), 1, 2), "weight='nan inside'"),
        *(
            (
                lambda bad=bad: pruning.least_important(torch.tensor([[1.0, bad]]), 0.5),
                "importance='inf or nan inside'",
            )
            for bad in (torch.nan, torch.inf)
        ),
        (
            lambda: pruning.prune_heads(linformer(model(ENCODER), 16, 4), {0: [0]}),
            "attention='LinformerAttention': expected the plain Transformer's",
        ),
        (
            lambda: pruning.forward_flops(with_windows(model(), 4), 16),
            "attention='SlidingAttention': expected the Transformer's",
        ),
        (lambda: pruning.prune_heads(model(), {3: [0]}), "layer=3: expected 0 to 2"),
        (lambda: pruning.prune_heads(model(), {-1: [0]}), "layer=-1"),
        (lambda: pruning.prune_heads(model(), {0: [4]}), "head=4: expected 0 to 3 in layer 0"),
        (lambda: pruning.prune_ffn(model(), {0: [64]}), "neuron=64"),
        (lambda: pruning.prune_ffn(model(), {0: [-1]}), "neuron=-1"),
        (lambda: pruning.prune_heads(model(replace(CONFIG, share="all")), {0: [0]}), "layer=0"),
        (lambda: pruning.prune_heads(share_qkv(model(), 2), {1: [0]}), "layer=1"),
        (
            lambda: pruning.prune_heads(model(replace(CONFIG, positions="rotary")), {0: [0]}),
            "attention='GroupedAttention': expected the plain Transformer's",
        ),
        (lambda: pruning.head_importance(model(), []), "batches="),
        (
            lambda: pruning.head_importance(model(replace(CONFIG, share="attention")), batches()),
            "one for each layer",
        ),
        (
            lambda: pruning.head_importance(pruning.prune_heads(model(), HEADS), batches()),
            "as many heads",
        ),
        (lambda: pruning.least_important(torch.ones(2, 3), 2), "ratio=2"),
        (lambda: pruning.least_important(torch.ones(2, 3), 0.5, keep=4), "keep=4"),
        (lambda: pruning.apply_masks(model(), {"nothing": torch.ones(1) > 0}), "masks='nothing'"),
        (
            lambda: pruning.apply_masks(model(), {"final_norm.weight": torch.ones(1) > 0}),
            "a bool tensor of the weight's shape",
        ),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_importance_of_a_model_in_few_bits():
    expected = pruning.head_importance(model(), batches())
    ours = pruning.head_importance(model().bfloat16(), batches())
    torch.testing.assert_close(ours, expected, atol=0.02 * expected.max().item(), rtol=0.3)


def test_the_last_layers_shared_with_nobody_can_be_pruned():
    net = share_qkv(model(), 2)
    assert pruning.prune_heads(net, {2: [0]}).layers[2].attention.body.n_head == 3
    assert importance.least_important is pruning.least_important
