"""Notebook 04's real attention matrices: spectra, projections, a Linformer layer in MiniLM."""

import torch
import torch.nn.functional as F
from torch import Tensor

from efflab import data, train
from efflab.errors import require, require_int
from efflab.hooks import inputs_seen
from efflab.model import Attention, Transformer, attention_weights
from efflab.structure.linformer import (
    LinformerAttention,
    from_attention,
    linformer,
    linformer_attention,
)

# --- Real attention matrices -----------------------------------------------------------------


def windows(tokenizer, split: str, n_texts: int, seq_len: int) -> Tensor:
    """The first `seq_len` tokens of `n_texts` different library modules: ids (n_texts, seq_len)."""
    require_int("n_texts", n_texts)
    ids = []
    for _, text in data.stdlib_files(split):
        cut = dict(add_special_tokens=False, truncation=True, max_length=seq_len)
        found = tokenizer(text[: 20 * seq_len], **cut)["input_ids"]
        if len(found) == seq_len:
            ids.append(found)
        if len(ids) == n_texts:
            return torch.tensor(ids)
    raise ValueError(f"n_texts={n_texts}: expected at most {len(ids)}, the modules long enough")


@torch.no_grad()
def layer_inputs(model: Transformer, ids: Tensor) -> list[Tensor]:
    """What each layer's attention receives, (B,T,C) a layer."""
    inputs: list[Tensor] = []
    bodies = {str(i): layer.attention.body for i, layer in enumerate(model.layers)}
    with inputs_seen(bodies, lambda _, x: inputs.append(x)):
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
    of the mean of P^T P. Keeping the first k gives the least total squared error of P ~ P R^T R
    that any fixed R of k rows can have.
    """
    gram = (matrices.transpose(-1, -2) @ matrices).mean(1)
    return torch.linalg.eigh(gram).eigenvectors.flip(-1).transpose(-1, -2)


def fixed_errors(matrices: Tensor, basis: Tensor) -> Tensor:
    """Relative error of P R^T R, R the first k rows of `basis` (layers, H, T, T), k = 1..T.

    The answer has the shape (layers, B, H, T).
    """
    kept = (matrices @ basis.transpose(-1, -2)[:, None]).square().sum(-2).cumsum(-1)
    total = matrices.square().sum((-2, -1))[..., None]
    return ((total - kept).clamp_min(0) / total).sqrt()


def random_basis(like: Tensor, seed: int = 0) -> Tensor:
    """Orthonormal rows in random directions, of the shape of `like` (layers, H, T, T)."""
    rng = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(like.shape, generator=rng)).Q.transpose(-1, -2)


# --- A Linformer layer in a model that was not trained with it -------------------------------


def segment_means(k: int, seq_len: int) -> Tensor:
    """The simplest summary: row j averages the j-th of k equal stretches, (k, seq_len)."""
    require(seq_len % k == 0, "k", k, "a divisor of {n}", n=seq_len)
    return torch.eye(k).repeat_interleave(seq_len // k, 1) * (k / seq_len)


def output_error(layer: LinformerAttention, full: Attention, x: Tensor) -> float:
    """Relative error of the layer's output on x (B,T,C) against full attention's."""
    with torch.no_grad():
        expected = full(x)
        return ((layer(x) - expected).norm() / expected.norm()).item()


def learn_projections(layer: LinformerAttention, full: Attention, x: Tensor, n_steps: int) -> None:
    """Fit E and F, and nothing else, so that the layer's output on x (B,T,C) nears the full one."""
    with torch.no_grad():
        q, k, v = full.heads(x)
        expected = F.scaled_dot_product_attention(q, k, v)
        scale = expected.square().mean()

    def loss(layer: LinformerAttention, some: Tensor, expected: Tensor) -> Tensor:
        y = linformer_attention(q[some], k[some], v[some], layer.E, layer.F)
        return (y - expected).square().mean() / scale

    def batch(step: int) -> train.Batch:
        some = torch.arange(step * 8, step * 8 + 8) % len(x)
        return some, expected[some]

    adam = [torch.optim.Adam([layer.E, layer.F], lr=3e-3)]
    train.fit(layer, batch, n_steps, optimizers=adam, loss_fn=loss)


def drop_in_rows(model: Transformer, ids: Tensor, held_out: Tensor, k: int, n_steps: int = 40):
    """One Linformer layer in place of the first or last of MiniLM: its output's relative error.

    E and F random, averages of k stretches, or learned from `ids` in `n_steps`; measured on
    `held_out`, both (texts, T). Beside them the error of the best rank-k matrices, text by text.
    """
    T = ids.shape[1]
    inputs, tests, rows = layer_inputs(model, ids), layer_inputs(model, held_out), []
    for i in (0, len(model.layers) - 1):
        full, x = model.layers[i].attention.body, tests[i]
        row = dict(layer=i + 1, k=k, best=100 * _best_output_error(full, x, k), kind="measured")
        torch.manual_seed(0)
        layer = from_attention(full, T, k)
        row["random"] = 100 * output_error(layer, full, x)
        with torch.no_grad():
            layer.E.copy_(segment_means(k, T).expand_as(layer.E))
            layer.F.copy_(layer.E)
        row["means"] = 100 * output_error(layer, full, x)
        learn_projections(layer, full, inputs[i], n_steps)
        row["learned"] = 100 * output_error(layer, full, x)
        rows.append(row)
    return rows


DROP_IN_COLUMNS = {
    "layer": "layer",
    "k": "k",
    "random": "random E, F: error (%)",
    "means": "segment means: error (%)",
    "learned": "E, F learned in a few steps: error (%)",
    "best": "best rank k of each text: error (%)",
    "kind": "kind",
}


@torch.no_grad()
def _best_output_error(full: Attention, x: Tensor, k: int) -> float:
    """The layer's error where every matrix is replaced by its own best of rank k."""
    q, key, v = full.heads(x)
    U, S, V = torch.linalg.svd(attention_weights(q, key))
    y = (U[..., :k] * S[..., None, :k]) @ (V[..., :k, :] @ v)
    expected = full(x)
    return ((full.out(y.transpose(1, 2).flatten(2)) - expected).norm() / expected.norm()).item()


@torch.no_grad()
def averaged(model: Transformer, k: int) -> Transformer:
    """MiniLM with segment means of k rows for texts of 64 tokens in every layer, not retrained."""
    model = linformer(model, 64, k, "kv")
    for layer in model.layers:
        layer.attention.body.E.copy_(segment_means(k, 64))
    return model
