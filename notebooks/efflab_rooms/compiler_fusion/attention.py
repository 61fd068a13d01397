"""Notebook 07's derivation: bytes of softmax(q kᵀ)v, by formula and as the compilers count them."""

from functools import lru_cache

import numpy as np
import torch

from efflab.acceleration import block
from efflab.acceleration.fusion import FusionReport, attention_bytes, inductor_report, xla_report
from efflab_rooms.compiler_fusion.compilers import N_HEAD

HEAD_DIM = 64
VALUE_BYTES = 4


@lru_cache(maxsize=4)
def counted(seq_len: int, head_dim: int, n_head: int = 1) -> FusionReport:
    """XLA's report on softmax(q kᵀ)v in eight operations."""
    namespace = block.jax_namespace()
    q = np.ones((1, n_head, seq_len, head_dim), np.float32)

    def attention(q, k, v):
        return block.softmax(namespace, q @ k.swapaxes(-1, -2) * head_dim**-0.5) @ v

    return xla_report(attention, q, q + 1, q + 2)


NAMES = ("q kᵀ", "scale", "max", "subtract max", "exp", "sum", "divide by sum", "· v")
READS = ("2 T D", "T²", "T²", "T² + T", "T²", "T²", "T² + T", "T² + T D")
WRITES = ("T²", "T²", "T", "T²", "T²", "T", "T²", "T D")


def derivation_rows(seq_len: int = 4, head_dim: int = 2) -> list[dict]:
    """The eight operations of one head: what each reads and writes, in letters and in values."""
    ops = counted(seq_len, head_dim).ops
    return [
        dict(operation=name, reads=reads, writes=writes,
             values_read=sum(op.reads.values()) // VALUE_BYTES,
             values_written=op.nbytes // VALUE_BYTES)
        for name, reads, writes, op in zip(NAMES, READS, WRITES, ops, strict=True)
    ]  # fmt: skip


DERIVATION_COLUMNS = {
    "operation": "operation",
    "reads": "reads",
    "writes": "writes",
    "values_read": "values read",
    "values_written": "values written",
}


@lru_cache(maxsize=1)
def recognized(seq_len: int, head_dim: int = HEAD_DIM, n_head: int = N_HEAD) -> FusionReport:
    """Inductor on softmax(q kᵀ)v as people write it: it knows that pattern by heart."""
    heads = [torch.randn(1, n_head, seq_len, head_dim) for _ in range(3)]

    def attention(q, k, v):
        return (q @ k.mT * head_dim**-0.5).softmax(-1) @ v

    return inductor_report(attention, *heads)


def bytes_rows(seq_len: int, *, head_dim: int = HEAD_DIM, n_head: int = N_HEAD) -> list[dict]:
    """Megabytes of one layer's heads by formula, and where a compiler counts the same."""
    found = {"none": counted(seq_len, head_dim, n_head).bytes_before}
    found["all"] = recognized(seq_len, head_dim, n_head).bytes_after
    names = {"none": "eight kernels", "softmax": "product, softmax, product", "all": "one kernel"}
    formulas = {"none": "12 T² + 4 T D + 4 T", "softmax": "4 T² + 4 T D", "all": "4 T D"}
    rows = []
    for fused, name in names.items():
        mb = attention_bytes(seq_len, head_dim, n_head, fused=fused) / 1e6
        here = found[fused] / 1e6 if fused in found else None
        rows.append(dict(form=name, formula=formulas[fused], computed=mb, measured=here,
                         ratio=here / mb if here else None))  # fmt: skip
    return rows


BYTES_COLUMNS = {
    "form": "form",
    "formula": "values a head",
    "computed": "MB (computed)",
    "measured": "MB, counted by a compiler (measured)",
    "ratio": "measured / formula",
}
