"""GPipe's measured throughputs against its ideal bubble (Huang et al. 2019, Tables 2 and 3).

Ideal: K equal stages, no communication, and one batch cut into M micro-batches. The paper
adjusted the batch to the memory, its AmoebaNet has unequal stages, and each stage's forward pass
is recomputed before the backward pass, partly in time that would be idle.
"""

from efflab.arguments import check_module
from efflab.data import read_published
from efflab.rules import Size

BACKWARD = 2.0
"""Time of a backward pass in forward passes: one product for the inputs, one for the weights."""


def speedup(n_stages: Size, n_microbatches: Size, *, recompute: bool = False) -> float:
    """Throughput relative to one device: K stages minus their bubble, K M / (M + K - 1).

    `recompute`: relative to one device that recomputes too. A stage then recomputes while it waits
    for the gradient (section 2.3): its K - 1 waits are as long as without, while its work grows.

    >>> round(speedup(8, 32), 2), round(speedup(8, 32, recompute=True), 2)
    (6.56, 6.87)
    """
    work = n_microbatches * (1.0 + BACKWARD + recompute)
    waits = (n_stages - 1) * (1.0 + BACKWARD)
    return n_stages * work / (work + waits)


def published_rows() -> list[dict]:
    """The rows, by model. `over_ideal` is the measured throughput over the ideal one.

    `throughput` (the paper's), `ideal` and `recomputed` are relative to the model's first row, its
    baseline: two stages with one micro-batch in Table 2, with 32 in Table 3.
    """
    rows = []
    first: dict[tuple[int, str], tuple[int, int]] = {}
    for row in read_published("gpipe"):
        setting = row["n_stages"], row["n_microbatches"]
        base = first.setdefault((row["table"], row["model"]), setting)
        ideal = speedup(*setting) / speedup(*base)
        recomputed = speedup(*setting, recompute=True) / speedup(*base, recompute=True)
        over = row["throughput"] / ideal
        own = dict(ideal=ideal, recomputed=recomputed, over_ideal=over, is_baseline=setting == base)
        rows.append(row | own)
    return rows


def gains() -> list[dict]:
    """The rows with several micro-batches, without those that are their model's baseline."""
    rows = published_rows()
    return [row for row in rows if row["n_microbatches"] > 1 and not row["is_baseline"]]


check_module(__name__)
