"""Notebook 07's recorded GPUs: the block eager and compiled, attention by kernel and length."""

from efflab.experiments import gpu_bench


def block_rows() -> list[dict]:
    """A block on each recorded GPU: milliseconds, and the ratio to single operations."""
    rows = []
    for gpu, made in gpu_bench.recorded_part(gpu_bench.COMPILED).items():
        one, band = made["ms"], made["band"]
        rows.append(dict(gpu=gpu, form="written out, single operations", ms=one, ratio=1.0,
                         low=1 - band, high=1 + band, kind="recorded"))  # fmt: skip
        rows += [dict(gpu=gpu) | row | dict(kind="recorded") for row in made["rows"]]
    return rows


BLOCK_COLUMNS = {
    "gpu": "device",
    "form": "form",
    "ms": "ms",
    "ratio": "time / single operations",
    "low": "from",
    "high": "to",
    "kind": "kind",
}


def attention_rows() -> list[dict]:
    """Attention by length on each recorded GPU: scores in memory against the fused kernels."""
    rows = []
    for gpu, made in gpu_bench.recorded_part(gpu_bench.ATTENTION).items():
        ran = [row for row in made["rows"] if row["ms"] is not None]
        rows += [dict(gpu=gpu) | row | dict(kind="recorded") for row in ran]
    return rows


ATTENTION_COLUMNS = {
    "gpu": "device",
    "seq_len": "tokens",
    "kernel": "kernel",
    "ms": "ms",
    "ratio": "time / written out",
    "mb": "MB, beside the inputs",
    "kind": "kind",
}
