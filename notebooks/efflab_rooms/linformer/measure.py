"""Notebook 04's numbers: real attention's spectra, Linformer in MiniLM, its costs and its leak."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from efflab import bench, data, train
from efflab.base.hooks import watch_inputs
from efflab.errors import require_int
from efflab.estimate import Estimate, of_mean
from efflab.model import Attention, Transformer, attention_weights, attention_written_out
from efflab.structure.linformer import (
    LinformerAttention,
    attention_flops,
    from_attention,
    linformer_attention,
    linformer_flops,
    segment_means,
)

# --- Real attention matrices -----------------------------------------------------------------


def windows(tokenizer, split: str, n_texts: int, seq_len: int) -> Tensor:
    """The first `seq_len` tokens of `n_texts` different library modules: ids (n_texts, seq_len)."""
    require_int("n_texts", n_texts)
    cut = dict(add_special_tokens=False, truncation=True, max_length=seq_len)
    texts = []
    for _, text in data.stdlib_files(split):
        ids = tokenizer(text[: 20 * seq_len], **cut)["input_ids"]
        if len(ids) == seq_len:
            texts.append(ids)
        if len(texts) == n_texts:
            return torch.tensor(texts)
    raise ValueError(f"n_texts={n_texts}: expected at most {len(texts)}, the modules long enough")


@torch.no_grad()
def layer_inputs(model: Transformer, ids: Tensor) -> list[Tensor]:
    """What each layer's attention receives, (B,T,C) a layer."""
    inputs: list[Tensor] = []
    bodies = {str(i): layer.attention.body for i, layer in enumerate(model.layers)}
    with watch_inputs(bodies, lambda _, x: inputs.append(x)):
        model.encode(ids)
    return inputs


@torch.no_grad()
def attention_matrices(model: Transformer, ids: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(D)) of every layer and head: (layers, B, H, T, T)."""
    matrices = []
    for layer, x in zip(model.layers, layer_inputs(model, ids), strict=True):
        q, k, _ = layer.attention.body.heads(x)
        matrices.append(attention_weights(q, k))
    return torch.stack(matrices)


def ranks_for(values: Tensor, energy: float = 0.9) -> Tensor:
    """How many of the singular values (..., T) hold `energy` of their squared sum."""
    share = values.square().cumsum(-1) / values.square().sum(-1, keepdim=True)
    return (share < energy).sum(-1) + 1


def own_errors(values: Tensor) -> Tensor:
    """Relative error of the best rank-k approximation, k = 1..T, of singular values (..., T)."""
    squares = values.square()
    rest = squares.sum(-1, keepdim=True) - squares.cumsum(-1)
    return (rest.clamp_min(0) / squares.sum(-1, keepdim=True)).sqrt()


def shared_basis(matrices: Tensor) -> Tensor:
    """The one basis of positions that serves many texts best: (layers, B, H, T, T) -> (.., T, T).

    Rows of the answer (layers, H, T, T) are orthonormal, the most useful first: the eigenvectors
    of the mean of P^T P. Its first k rows R give the least total squared error of P ~ P R^T R that
    any fixed k rows can have.
    """
    gram = (matrices.mT @ matrices).mean(1)
    return torch.linalg.eigh(gram).eigenvectors.flip(-1).mT


def fixed_errors(matrices: Tensor, basis: Tensor) -> Tensor:
    """Relative error of P R^T R, R the first k rows of `basis` (layers, H, T, T), k = 1..T.

    The answer has the shape (layers, B, H, T).
    """
    energy = (matrices @ basis.mT[:, None]).square().sum(-2).cumsum(-1)
    total = matrices.square().sum((-2, -1))[..., None]
    return ((total - energy).clamp_min(0) / total).sqrt()


# --- A Linformer layer in a model that was not trained with it -------------------------------


def learn_projections(layer: LinformerAttention, full: Attention, x: Tensor, n_steps: int) -> None:
    """Fit E and F alone, so that the layer's output on x (B,T,C) comes near to full attention's."""
    with torch.no_grad():
        q, k, v = full.heads(x)
        expected = F.scaled_dot_product_attention(q, k, v)
        scale = expected.square().mean()

    def loss(layer: LinformerAttention, texts: Tensor, expected: Tensor) -> Tensor:
        y = linformer_attention(q[texts], k[texts], v[texts], layer.E, layer.F)
        return (y - expected).square().mean() / scale

    def batch(step: int) -> train.Batch:
        texts = torch.arange(step * 8, step * 8 + 8) % len(x)
        return texts, expected[texts]

    adam = [torch.optim.Adam([layer.E, layer.F], lr=3e-3)]
    train.fit(layer, batch, n_steps, optimizers=adam, loss_fn=loss)


@torch.no_grad()
def output_error(layer: Callable, full: Attention, x: Tensor) -> Estimate:
    """Per cent by which a layer's output on x (B,T,C) is off full attention's; interval by text."""
    expected = full(x)
    off = 100 * (layer(x) - expected).norm(dim=(1, 2)) / expected.norm(dim=(1, 2))
    return of_mean(off.tolist())


def drop_in_errors(
    full: Attention, x: Tensor, held_out: Tensor, k: int, n_steps: int = 300
) -> dict[str, Estimate]:
    """Per cent by which a Linformer layer in place of `full` is wrong on `held_out` (B,T,C).

    E and F "random", the "means" of k stretches, or "learned" from `x` (B,T,C), starting at the
    means, one E and one F for all heads: a pair a head fits x better and `held_out` worse. "own" is
    the learned pair's error on x itself; "best" has each text's own best matrices of rank k.
    """
    torch.manual_seed(0)
    layer = from_attention(full, x.shape[1], k, "heads")
    errors = dict(random=output_error(layer, full, held_out))
    with torch.no_grad():
        layer.E.copy_(segment_means(k, x.shape[1]))
        layer.F.copy_(layer.E)
    errors["means"] = output_error(layer, full, held_out)
    learn_projections(layer, full, x, n_steps)
    errors["learned"], errors["own"] = (output_error(layer, full, y) for y in (held_out, x))
    errors["best"] = output_error(partial(best_output, full, k), full, held_out)
    return errors


@torch.no_grad()
def best_output(full: Attention, k: int, x: Tensor) -> Tensor:
    """The layer's output (B,T,C) where every attention matrix is its own best of rank k."""
    q, keys, v = full.heads(x)
    U, S, V = torch.linalg.svd(attention_weights(q, keys))
    y = (U[..., :k] * S[..., None, :k]) @ (V[..., :k, :] @ v)
    return full.out(y.transpose(1, 2).flatten(2))


# --- Time and memory -------------------------------------------------------------------------


class UnfusedAttention(Attention):
    """Attention as the formula is written: all T x T scores stand in memory."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.out(attention_written_out(*self.heads(x)).transpose(1, 2).flatten(2))


@dataclass(frozen=True)
class Cost:
    """One Linformer layer beside full attention's, unfused and fused, at one length and k."""

    seq_len: int
    k: int
    flop_ratio: float
    speedup: float  # unfused time over Linformer's
    fused_speedup: Estimate
    over_fused: Estimate  # Linformer's time over the fused kernel's
    band: float  # the A/A noise of that
    memory_saving: float  # unfused peak over Linformer's
    fused_memory_saving: float


def flop_ratio(seq_len: int, k: int, d_model: int) -> float:
    """FLOPs of a layer of full attention over a Linformer layer's, both with four projections."""
    projections = 8 * seq_len * d_model**2
    full, less = attention_flops(seq_len, d_model), linformer_flops(seq_len, k, d_model)
    return (full + projections) / (less + projections)


@torch.no_grad()
def costs(lengths, ks, d_model: int = 128, n_head: int = 2, repeats: int = 7) -> list[Cost]:
    """Time and peak memory of one layer at each length n, for every k below n.

    Full attention twice: with its scores in memory, as the paper's baseline had them, and fused.
    """
    results = []
    for n in lengths:
        x, shape = torch.randn(1, n, d_model), (d_model, n_head)
        layers = {"unfused": UnfusedAttention(*shape), "fused": Attention(*shape)}
        short = [k for k in ks if k < n]
        layers |= {k: LinformerAttention(*shape, n, k, "heads") for k in short}
        calls = {name: partial(layer, x) for name, layer in layers.items()}
        memory = {name: bench.peak_bytes(call) for name, call in calls.items()}
        comparison = bench.compare(calls.pop("fused"), calls, 1, repeats)
        fused, unfused = comparison.timings["baseline"], comparison.timings["unfused"]
        results += [
            Cost(
                seq_len=n,
                k=k,
                flop_ratio=flop_ratio(n, k, d_model),
                speedup=unfused.ratio(comparison.timings[k]),
                fused_speedup=fused.ratio_interval(comparison.timings[k]),
                over_fused=comparison.ratios[k],
                band=comparison.band,
                memory_saving=memory["unfused"] / memory[k],
                fused_memory_saving=memory["fused"] / memory[k],
            )
            for k in short
        ]
    return results


@torch.no_grad()
def token_costs(seq_len: int, k: int, repeats: int = 11) -> dict[str, tuple[Estimate, float]]:
    """What a token costs at `seq_len` over what it costs at half of that, by layer: time, memory.

    Of the "full" attention layer (fused) and of "Linformer", 128 channels and two heads, with all
    four timed interleaved. Where cost grows with the length, both are 1; with its square, 2.
    """
    layers = {}
    for n in (seq_len // 2, seq_len):
        layers |= {("full", n): Attention(128, 2)}
        layers |= {("Linformer", n): LinformerAttention(128, 2, n, k, "heads")}
    calls = {key: partial(layer, torch.randn(1, key[1], 128)) for key, layer in layers.items()}
    memory = {key: bench.peak_bytes(call) for key, call in calls.items()}
    times = bench.time_interleaved(calls, 1, repeats)
    costs = {}
    for name in ("full", "Linformer"):
        short, long = (name, seq_len // 2), (name, seq_len)
        time = times[long].ratio_interval(times[short])
        half = Estimate(time.mean / 2, time.low / 2, time.high / 2)
        costs[name] = half, memory[long] / memory[short] / 2
    return costs


def attention_core_flops(seq_len: int, k: int | None = None) -> int:
    """FLOPs that torch counts in attention of two heads of 64, with k summaries or in full."""
    # fake tensors have shapes alone, so that no n x n scores take memory
    with FakeTensorMode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        q, keys, v = torch.empty(3, 1, 2, seq_len, 64)
        if k is None:
            F.scaled_dot_product_attention(q, keys, v)
        else:
            linformer_attention(q, keys, v, *torch.empty(2, 2, k, seq_len))
    return counter.get_total_flops()


# --- As published it leaks -------------------------------------------------------------------


def learn_random_symbols(model: Transformer, n_steps: int = 150) -> float:
    """Train on random symbols, which nobody can foresee: the loss on a new batch, in nats."""
    n_symbols, seq_len = model.config.vocab_size, model.config.max_len

    def batch(step: int) -> train.Batch:
        rng = torch.Generator().manual_seed(step)
        ids = torch.randint(n_symbols, (32, seq_len + 1), generator=rng)
        return ids[:, :-1], ids[:, 1:]

    train.fit(model, batch, n_steps, lr=1e-2)
    with torch.no_grad():
        return train.language_model_loss(model, *batch(n_steps + 1)).item()


@torch.no_grad()
def first_answer_shift(model: nn.Module) -> float:
    """How far the first position's logits move when the last symbol changes."""
    ids = torch.zeros(1, model.config.max_len, dtype=torch.long)
    changed = ids.clone()
    changed[0, -1] = model.config.vocab_size - 1
    return (model(ids) - model(changed))[0, 0].abs().max().item()
