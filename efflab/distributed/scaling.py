"""Data parallelism over nodes: published efficiencies against a model of a step.

More devices share one global batch ("strong scaling"): each computes less, accumulates over fewer
micro-batches, and still sums all gradients once per step. So computing shrinks and the sum does
not. Rows are those of BERT-large in NVIDIA's DeepLearningExamples; a series is one sequence length
and precision, and its first row, a single node, is the baseline.
"""

from itertools import groupby
from statistics import median

from efflab.arguments import check_arguments
from efflab.config import PRESETS
from efflab.cost import num_params
from efflab.data import read_published
from efflab.distributed.ring import ring_bytes
from efflab.errors import require, require_number, require_positive
from efflab.rules import Size

GLOBAL_BATCH = {128: 65536, 512: 32768}
"""Sequences per step in the two phases of the README's recipe (8 devices x 8,192 and x 4,096)."""
MICRO_BATCH = {("mixed", 128): 256, ("mixed", 512): 32, ("TF32", 512): 16}
"""Micro-batches that fit a device with 80 GB (the same README; `amp.csv`)."""
GRADIENT_BYTES = {"mixed": 2, "TF32": 4}


@check_arguments
def step_seconds(
    n_devices: Size,
    global_batch: Size,
    device_rate: float,
    gradient_bytes: float,
    seconds_per_byte: float,
    *,
    n_sums: Size = 1,
) -> float:
    """Time of computing, plus the exposed time of `n_sums` all-reduces of the gradients.

    `device_rate` in sequences per second; `seconds_per_byte`: exposed time (not overlapped with
    computing) per byte that a device sends. `n_sums` above 1: an all-reduce per micro-batch.
    """
    require_positive("device_rate", device_rate)
    require_number("gradient_bytes", gradient_bytes)
    require_number("seconds_per_byte", seconds_per_byte)
    exposed = ring_bytes(gradient_bytes, n_devices) * seconds_per_byte
    return global_batch / (n_devices * device_rate) + n_sums * exposed


def efficiencies() -> list[dict]:
    """Every published row with quantities derived from it.

    `efficiency`: its sequences per second and device relative to its series' first row;
    `accumulation`: micro-batches per step; `seconds` per step; `exposed_seconds`: those beyond
    linear scaling from the first row.
    """
    result = []
    for (precision, seq_len), series in groupby(read_published("scaling"), _series):
        first, *_ = rows = list(series)
        rate = first["sequences_per_second"] / first["n_devices"]
        batch = GLOBAL_BATCH[seq_len]
        micro_batch = MICRO_BATCH[precision, seq_len]
        for row in rows:
            n, ideal = row["n_devices"], batch / (row["n_devices"] * rate)
            seconds = batch / row["sequences_per_second"]
            result.append(
                row
                | dict(
                    efficiency=ideal / seconds,
                    accumulation=batch // (n * micro_batch),
                    seconds=seconds,
                    exposed_seconds=seconds - ideal,
                    device_rate=rate,
                    gradient_bytes=GRADIENT_BYTES[precision] * num_params(PRESETS["bert-large"]),
                )
            )
    return result


@check_arguments
def fit(rows: list[dict]) -> float:
    """Fit the one constant, exposed seconds per byte sent: the median over multi-node rows.

    A median, since one row is faster than linear and one far slower than any other.
    """
    many = [row for row in rows if row["nodes"] > 1]
    require(len(many) > 0, "rows", len(many), "at least one of several nodes")
    return max(0.0, median(row["exposed_seconds"] / _message_bytes(row) for row in many))


def left_out() -> list[dict]:
    """Multi-node rows, each with its efficiency `predicted` by the constant fitted to the others.

    `error` is predicted minus published efficiency. A series' first row is its baseline and is
    not predicted.
    """
    rows = efficiencies()
    result = []
    for row in (row for row in rows if row["nodes"] > 1):
        constant = fit([other for other in rows if other is not row])
        predicted = efficiency(row, constant)
        result.append(row | {"predicted": predicted, "error": predicted - row["efficiency"]})
    return result


@check_arguments
def efficiency(row: dict, seconds_per_byte: float, *, every_micro_batch: bool = False) -> float:
    """A row's efficiency by the model, with one all-reduce per step or per micro-batch."""
    batch, n = GLOBAL_BATCH[row["seq_len"]], row["n_devices"]
    sizes = n, batch, row["device_rate"], row["gradient_bytes"]
    n_sums = row["accumulation"] if every_micro_batch else 1
    return batch / (n * row["device_rate"]) / step_seconds(*sizes, seconds_per_byte, n_sums=n_sums)


def _series(row: dict) -> tuple[str, int]:
    return row["precision"], row["seq_len"]


def _message_bytes(row: dict) -> float:
    return ring_bytes(row["gradient_bytes"], row["n_devices"])
