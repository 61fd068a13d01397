"""GPipe's measured throughputs beside what its bubble allows (Huang et al. 2019, Tables 2 and 3).

Ideal: K equal stages, no communication, and one batch cut into M micro-batches. The paper
adjusted the batch to the memory, its AmoebaNet does not cut into equal stages, and each stage's
forward pass is recomputed before the backward, partly while it would wait.
"""

from efflab.arguments import check_arguments
from efflab.data import read_published
from efflab.rules import Size

BACKWARD = 2.0
"""Time of a backward pass in forward passes: a product for the inputs, one for the weights."""


@check_arguments
def speedup(n_stages: Size, n_microbatches: Size) -> float:
    """Throughput in those of one device: K stages less their bubble, K M / (M + K - 1).

    >>> round(speedup(8, 32), 2)
    6.56
    """
    return _speedup(n_stages, n_microbatches, recompute=0.0, waits=1.0 + BACKWARD)


@check_arguments
def recompute_speedup(n_stages: Size, n_microbatches: Size, *, overlap: bool = True) -> float:
    """As `speedup`, in throughputs of one device that recomputes too.

    With `overlap` a stage recomputes while it waits for the gradient (section 2.3): its K - 1 waits
    are as long as without recomputation, while its work grows.

    >>> round(recompute_speedup(8, 32), 2), round(recompute_speedup(8, 32, overlap=False), 2)
    (6.87, 6.56)
    """
    waits = 1.0 + BACKWARD + (0.0 if overlap else 1.0)
    return _speedup(n_stages, n_microbatches, recompute=1.0, waits=waits)


def _speedup(n_stages: int, n_microbatches: int, recompute: float, waits: float) -> float:
    """`waits`: time of a micro-batch in a stage that each of the K - 1 others waits for."""
    work = n_microbatches * (1.0 + BACKWARD + recompute)
    return n_stages * work / (work + (n_stages - 1) * waits)


def published_rows() -> list[dict]:
    """The tables' rows with `ideal` and `recomputed` throughputs, both over that of the same row.

    Each model's first row is 1 in the paper; `over_ideal` is measured over ideal.
    """
    rows = []
    first: dict[tuple[int, str], tuple[int, int]] = {}
    for row in read_published("gpipe"):
        setting = row["n_stages"], row["n_microbatches"]
        base = first.setdefault((row["table"], row["model"]), setting)
        ideal = speedup(*setting) / speedup(*base)
        recomputed = recompute_speedup(*setting) / recompute_speedup(*base)
        over = row["throughput"] / ideal
        rows.append(row | {"ideal": ideal, "recomputed": recomputed, "over_ideal": over})
    return rows
