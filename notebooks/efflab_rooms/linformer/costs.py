"""Notebook 04's costs and its leak: time and memory by n and k, and a loss nobody can reach."""

import math

import torch
from torch import Tensor, nn

from efflab import bench, train
from efflab.config import ModelConfig
from efflab.estimate import Estimate
from efflab.lab import tr
from efflab.model import Attention, Transformer, attention_written_out
from efflab.structure.linformer import (
    LinformerAttention,
    attention_flops,
    linformer,
    linformer_flops,
)

# --- Time and memory -------------------------------------------------------------------------


class UnfusedAttention(Attention):
    """Attention as the formula is written: all T x T scores stand in memory."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.out(attention_written_out(*self.heads(x)).transpose(1, 2).flatten(2))


@torch.no_grad()
def cost_rows(lengths, ks, d_model: int = 128, n_head: int = 2, repeats: int = 7) -> list[dict]:
    """Time and peak memory of one attention layer, by length n and k; ratios to full attention.

    Full attention twice: with its scores in memory, as the paper's baseline had them, and through
    PyTorch's fused kernel. All layers have the same four projections besides.
    """
    rows = []
    for n in lengths:
        x = torch.randn(1, n, d_model)
        kinds = {"unfused": UnfusedAttention(d_model, n_head), "fused": Attention(d_model, n_head)}
        kinds |= {k: LinformerAttention(d_model, n_head, n, k, "heads") for k in ks if k < n}
        calls = {name: lambda m=m: m(x) for name, m in kinds.items()}  # noqa: B023
        found = bench.compared(calls.pop("fused"), calls, 1, repeats)
        times = found.timings | {"fused": found.timings["baseline"]}
        memory = {name: bench.peak_bytes(lambda m=m: m(x)) for name, m in kinds.items()}  # noqa: B023
        projections = 8 * n * d_model**2
        for k in ks:
            if k >= n:
                continue
            full, less = attention_flops(n, d_model), linformer_flops(n, k, d_model)
            rows.append(dict(
                seq_len=n, k=k,
                flop_ratio=(full + projections) / (less + projections),
                speedup=times["unfused"].ratio(times[k]),
                **_ends(times["fused"].ratio_interval(times[k])),
                over_fused=found.ratios[k],
                band=found.band,
                memory_saving=memory["unfused"] / memory[k],
                fused_memory_saving=memory["fused"] / memory[k],
                kind="measured",
            ))  # fmt: skip
    return rows


def _ends(speedup: Estimate) -> dict[str, float]:
    return dict(fused_speedup=speedup.mean, low=speedup.low, high=speedup.high)


COST_COLUMNS = {
    "seq_len": "n",
    "k": "k",
    "flop_ratio": "FLOPs, full / Linformer (computed)",
    "speedup": "times faster than unfused",
    "fused_speedup": "times faster than fused",
    "low": "interval, low",
    "high": "interval, high",
    "memory_saving": "times less memory than unfused",
    "fused_memory_saving": "times less memory than fused",
    "kind": "kind",
}

# --- As published it leaks -------------------------------------------------------------------


def causal_rows(n_steps: int = 150, n_symbols: int = 8, seq_len: int = 16) -> list[dict]:
    """Next-symbol loss on random symbols, which nobody can foresee: honest loss is ln n_symbols.

    A causal Transformer and one with Linformer layers (k = seq_len / 2) train for `n_steps`.
    """
    rows = []
    for name, causal in (("causal attention", True), ("Linformer", False)):
        torch.manual_seed(0)
        model = Transformer(ModelConfig(2, 2, 32, 64, n_symbols, seq_len, causal=causal))
        if not causal:
            model = linformer(model, seq_len, seq_len // 2)

        def batch(step):
            rng = torch.Generator().manual_seed(step)
            ids = torch.randint(n_symbols, (32, seq_len + 1), generator=rng)
            return ids[:, :-1], ids[:, 1:]

        train.fit(model, batch, n_steps, lr=1e-2)
        with torch.no_grad():
            loss = train.language_model_loss(model, *batch(n_steps + 1)).item()
        moved = _first_answer(model, n_symbols, seq_len)
        row = dict(attention=tr(name), loss=loss, honest=math.log(n_symbols), first_answer=moved)
        rows.append(row | dict(kind="measured"))
    return rows


@torch.no_grad()
def _first_answer(model: nn.Module, n_symbols: int, seq_len: int) -> float:
    """How far the first position's logits move when the last symbol changes."""
    ids = torch.zeros(1, seq_len, dtype=torch.long)
    changed = ids.clone()
    changed[0, -1] = n_symbols - 1
    return (model(ids) - model(changed))[0, 0].abs().max().item()


CAUSAL_COLUMNS = {
    "attention": "attention",
    "loss": "loss on random symbols (nats)",
    "honest": "least honest loss, ln 8 (computed)",
    "first_answer": "first answer moves when the last symbol changes by",
    "kind": "kind",
}
