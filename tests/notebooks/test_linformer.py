"""Notebook 04: spectra of known matrices, projections, costs, the leak, pictures, exercises."""

import math

import pytest
import torch

from efflab import lab
from efflab.config import ModelConfig
from efflab.estimate import Estimate
from efflab.experiments import linformer_trained
from efflab.lab.check import judge
from efflab.model import Attention, Transformer
from efflab.structure.linformer import (
    attention_flops,
    from_attention,
    linformer,
    linformer_flops,
)
from efflab_rooms.linformer import exercises, figures, measure

ESTIMATE = Estimate(1.5, 1.4, 1.6)
COST = dict(flop_ratio=2.0, speedup=2.0, fused_speedup=ESTIMATE, over_fused=ESTIMATE, band=0.1)
COST |= dict(memory_saving=9.0, fused_memory_saving=1.0)


def random_basis(like):
    """Orthonormal rows in random directions, of the shape of `like` (layers, H, T, T)."""
    rng = torch.Generator().manual_seed(0)
    return torch.linalg.qr(torch.randn(like.shape, generator=rng)).Q.mT


@pytest.fixture(scope="module")
def matrices():
    """Attention matrices of a small random encoder: (layers, B, H, T, T)."""
    torch.manual_seed(0)
    model = Transformer(ModelConfig(2, 3, 24, 48, 50, 16)).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return measure.attention_matrices(model, torch.randint(50, (5, 16)))


def test_attention_matrices_are_the_models_own():
    torch.manual_seed(0)
    model = Transformer(ModelConfig(2, 3, 24, 48, 50, 16)).eval()
    ids = torch.randint(50, (2, 16))
    found = measure.attention_matrices(model, ids)
    assert found.shape == (2, 2, 3, 16, 16)
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 2, 3, 16))
    body, x = model.layers[1].attention.body, measure.layer_inputs(model, ids)[1]
    y = body.out((found[1] @ body.heads(x)[2]).transpose(1, 2).flatten(2))
    torch.testing.assert_close(y, body(x), rtol=1e-4, atol=1e-5)


def test_ranks_and_errors_of_known_singular_values():
    values = torch.tensor([3.0, 4**0.5, 3**0.5, 0.0])  # squares 9, 4, 3, 0 of 16
    errors = measure.own_errors(values)
    torch.testing.assert_close(errors, torch.tensor([7 / 16, 3 / 16, 0.0, 0.0]).sqrt())
    assert measure.ranks_for(values, 0.8).item() == 2
    assert measure.ranks_for(values, 0.9).item() == 3


def test_bases_and_the_order_of_errors(matrices):
    values = torch.linalg.svdvals(matrices)
    own = measure.own_errors(values)
    learned = measure.shared_basis(matrices)
    random = random_basis(learned)
    for basis in (learned, random):
        eye = torch.eye(16).expand_as(basis)
        torch.testing.assert_close(basis @ basis.transpose(-1, -2), eye, atol=1e-4, rtol=0)
    fixed, chance = (measure.fixed_errors(matrices, b) for b in (learned, random))
    assert (own <= fixed + 1e-3).all()  # the SVD's bound, for every matrix and every k
    squares = matrices.square().sum((-2, -1))[..., None]
    total = [(e.square() * squares).sum(1) for e in (fixed, chance)]
    assert (total[0] <= total[1] + 1e-3).all()  # the best fixed one, over the texts it learned from
    assert fixed[..., -1].max() < 1e-2
    # by hand: P R^T R with three rows
    R = learned[1, 2, :3]
    P = matrices[1, 4, 2]
    by_hand = (P - P @ R.T @ R).norm() / P.norm()
    torch.testing.assert_close(fixed[1, 4, 2, 2], by_hand, rtol=1e-3, atol=1e-4)


def test_one_text_alone_needs_no_more_than_its_own_rank():
    P = torch.rand(1, 1, 1, 8, 3) @ torch.rand(1, 1, 1, 3, 8)
    errors = measure.fixed_errors(P, measure.shared_basis(P))[0, 0, 0]
    assert errors[2] < 1e-2 < errors[0]


def test_learning_lowers_the_layers_error():
    torch.manual_seed(0)
    full = Attention(24, 3)
    for p in full.parameters():
        torch.nn.init.normal_(p, std=0.3)
    x = torch.randn(16, 12, 24)
    layer = from_attention(full, 12, 4)
    before = measure.output_error(layer, full, x).mean
    weights = layer.qkv.weight.clone()
    measure.learn_projections(layer, full, x, 60)
    assert measure.output_error(layer, full, x).mean < 0.9 * before
    assert torch.equal(layer.qkv.weight, weights)  # E and F alone learn


def test_an_error_has_the_interval_of_its_texts():
    full = Attention(24, 3)
    x = torch.randn(5, 12, 24)
    # off by 10% in four texts, by 20% in one
    factor = torch.tensor([1.1, 1.1, 0.9, 1.1, 1.2])[:, None, None]
    error = measure.output_error(lambda x: full(x) * factor, full, x)
    assert error.mean == pytest.approx(12, rel=1e-3)
    assert error.high - error.mean == pytest.approx(2.776 * 20**0.5 / 5**0.5, rel=1e-3)


def test_drop_in_errors_of_a_small_encoder():
    torch.manual_seed(0)
    model = Transformer(ModelConfig(2, 3, 24, 48, 50, 16)).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.5)
    inputs = measure.layer_inputs(model, torch.randint(50, (12, 16)))
    for layer, x in zip(model.layers, inputs, strict=True):
        errors = measure.drop_in_errors(layer.attention.body, x[:8], x[8:], 4, n_steps=20)
        assert set(errors) == {"random", "means", "learned", "own", "best"}
        means = {name: error.mean for name, error in errors.items()}
        assert 0 < means.pop("best") < min(means.values())
        assert means["learned"] < means["random"]


def test_what_a_token_costs_at_twice_the_length():
    costs = measure.token_costs(1024, 16, repeats=3)
    assert costs["Linformer"][1] == pytest.approx(1, abs=0.05)
    assert all(time.low <= time.mean <= time.high for time, _ in costs.values())
    flops = {k: [measure.attention_core_flops(n, k) for n in (256, 512)] for k in (32, None)}
    assert flops[32] == [linformer_flops(n, 32, 128) for n in (256, 512)]
    assert flops[None] == [attention_flops(n, 128) for n in (256, 512)]


def test_costs_of_memory():
    costs = measure.costs((64, 256), (16, 64), repeats=1)
    assert [(c.seq_len, c.k) for c in costs] == [(64, 16), (256, 16), (256, 64)]
    short, long, _ = costs
    assert long.flop_ratio > short.flop_ratio
    assert long.memory_saving > short.memory_saving
    # 2 heads of n x n scores and their softmax dwarf what a layer keeps at n = 256
    assert long.memory_saving > 2
    full = torch.randn(1, 32, 128)
    plain, fused = measure.UnfusedAttention(128, 2), Attention(128, 2)
    plain.load_state_dict(fused.state_dict())
    torch.testing.assert_close(plain(full), fused(full), rtol=1e-4, atol=1e-5)


def test_linformer_reads_the_future_and_causal_attention_does_not():
    torch.manual_seed(0)
    honest = Transformer(ModelConfig(2, 2, 32, 64, 8, 16, causal=True))
    torch.manual_seed(0)
    leaky = linformer(Transformer(ModelConfig(2, 2, 32, 64, 8, 16)), 16, 8)
    assert measure.learn_random_symbols(honest, n_steps=120) > 0.97 * math.log(8)
    assert measure.first_answer_shift(honest) == 0
    assert measure.learn_random_symbols(leaky, n_steps=120) < 0.9 * math.log(8)
    assert measure.first_answer_shift(leaky) > 1e-3


def test_figures(both_languages, matrices):
    values = torch.linalg.svdvals(matrices)
    learned = measure.shared_basis(matrices)
    fig = figures.spectrum_figure(values)
    assert len(fig.layout.meta) == 2
    fig = figures.projection_figure(values, matrices, learned, random_basis(learned))
    own, one, _ = fig.layout.meta.values()
    assert own <= one
    costs = [measure.Cost(n, k, **COST) for n in (512, 1024) for k in (128, 256)]
    assert list(figures.cost_figure(costs).layout.meta.values()) == [2.0, 1.0]
    over = dict.fromkeys(linformer_trained.CASES, ESTIMATE)
    fig = figures.trained_figure(over | {"trained-half": Estimate(0.1, 0.08, 0.13)})
    assert list(fig.layout.meta.values()) == [1.5, 1.5, 0.1, 1.5, 1.5, 1.5]
    assert fig.data[0].x == (16, 32, 64)
    assert fig.data[0].error_y.array == pytest.approx((0.1, 0.1, 0.03))


def test_explorer(both_languages):
    meta = figures.k_and_n(k=128, seq_len=1024).layout.meta
    flop_ratio = lab.tr("FLOPs, full / Linformer")
    assert meta[flop_ratio] == 1024 / (2 * 128)
    assert meta[lab.tr("scores, full / Linformer")] == 8
    assert meta[lab.tr("weights of E and F")] == 12 * 2 * 128 * 1024
    assert meta[lab.tr("n at which both take equal FLOPs")] == 256
    assert figures.k_and_n(k=512, seq_len=1024).layout.meta[flop_ratio] == 1
    with pytest.raises(ValueError, match="k=256: expected at most n=128"):
        figures.k_and_n(k=256, seq_len=128)


def attend(q, key, value, E, F):
    keys, values = E @ key, F @ value
    return (q @ keys.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1) @ values


SOLUTIONS = {
    "04-1": lambda L, H, n, k, share: L * {"none": 2 * H, "heads": 2, "kv": 1}[share] * k * n,
    "04-2": attend,
    "04-3": 256,
}
WRONG = {
    "04-1": lambda L, H, n, k, share: L * 2 * k * n,
    "04-2": lambda q, key, value, E, F: attend(q, key, value, F, E),
    "04-3": 128,
}


@pytest.mark.parametrize("name", SOLUTIONS)
def test_exercises(name, both_languages):
    exercise = exercises.EXERCISES[name]
    assert judge(exercise, SOLUTIONS[name])[0] == "correct"
    assert judge(exercise, WRONG[name])[0] == "not quite"
    assert judge(exercise, ...)[0] == "not attempted"
