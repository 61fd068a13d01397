"""The best tensor x pipeline x data split of a training run that fits the devices' memory.

All splits are tried (Narayanan et al. 2021, section 3, give heuristics for the same choice);
`efflab.distributed.split` has the cost model.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from math import gcd, isqrt

from efflab.arguments import check_module, unchecked
from efflab.base.significant import significant
from efflab.config import ModelConfig
from efflab.devices import Cluster, Device
from efflab.distributed.split import RECOMPUTE, Split, Training
from efflab.distributed.split import Plan as Plan
from efflab.distributed.split_model import divides_kv_heads, hidden_units
from efflab.errors import Refusal, quote
from efflab.rules import Size

GB = 1e9
_evaluate, _memory_bytes = unchecked(Training.evaluate), unchecked(Training.memory_bytes)
FACTORS = (
    "a product of a divisor of n_head={n_head} and d_ff={d_ff} up to {nodes}, one of "
    "n_layer={n_layer} and one of global_batch={batch}; next to it: {near}"
)
MORE = "{n} or more for {device} of {memory} GB; here the leanest split needs {least} GB per device"
NEVER = (
    "more than its {memory} GB; split over any number of devices, it needs {least} GB per device"
)
"""What a refusal allows."""


def best_plan(
    config: ModelConfig,
    n_devices: Size,
    device: Device,
    *,
    global_batch: Size,
    seq_len: Size,
    zero_stage: int = 0,
    cluster: Cluster | None = None,
) -> Plan:
    """The fastest split over all of `n_devices` that fits; a step is global_batch x seq_len tokens.

    If none fits, or `n_devices` does not factor so, a `ValueError` says what would work.

    >>> from efflab.config import PRESETS
    >>> from efflab.devices import DEVICES
    >>> a100 = DEVICES["A100 80GB SXM"]
    >>> plan = best_plan(PRESETS["gpt3-175b"], 1024, a100, global_batch=1536, seq_len=2048)
    >>> plan.tp, plan.pp, plan.dp
    (8, 8, 16)
    """
    training = Training(config, device, global_batch, seq_len, cluster)
    return rank_plans(training, n_devices, zero_stage)[0]


def rank_plans(training: Training, n_devices: Size, zero_stage: int = 0) -> list[Plan]:
    """`fitting_plans`, at least one; if there is none, a `ValueError` says what would work."""
    plans = fitting_plans(training, n_devices, zero_stage)
    if not plans:
        raise _advise(training, n_devices, zero_stage)
    return plans


def fitting_plans(training: Training, n_devices: Size, zero_stage: int = 0) -> list[Plan]:
    """Every split that fits into memory, the fastest first; ties by less memory."""
    memory, fitting = _memory(training), []
    for split in splits(training, n_devices, zero_stage):
        # Chunks only add to the memory, so what does not fit without them is left at once.
        if _memory_bytes(training, split) <= memory:
            plans = (_evaluate(training, other) for other in _interleave(training, split))
            fitting += [plan for plan in plans if plan.memory_bytes <= memory]
    return sorted(fitting, key=lambda plan: (plan.step_seconds, plan.memory_bytes))


def splits(training: Training, n_devices: Size, zero_stage: int = 0) -> Iterator[Split]:
    """All non-interleaved splits over `n_devices`, with all micro-batches and recomputations."""
    for tp, pp, dp in _grids(training):
        if tp * pp * dp == n_devices:
            for n_microbatches in _divisors(training.global_batch // dp):
                for recompute in RECOMPUTE:
                    sizes = tp, pp, dp, n_microbatches
                    yield Split(*sizes, zero_stage=zero_stage, recompute=recompute)


def _interleave(training: Training, split: Split) -> Iterator[Split]:
    """The split, and in a pipeline whose micro-batches come in rounds of pp with all chunks."""
    yield split
    if split.pp > 1 and split.n_microbatches % split.pp == 0:
        for n_chunks in _divisors(training.config.n_layer // split.pp)[1:]:
            yield replace(split, n_chunks=n_chunks)


def _grids(training: Training) -> Iterator[tuple[int, int, int]]:
    """Each (tp, pp, dp) that divides heads and hidden units (tp within a node), layers, batch."""
    config = training.config
    for tp in _divisors(gcd(config.n_head, hidden_units(config))):
        if tp <= training.network.node_devices and divides_kv_heads(config, tp):
            for pp in _divisors(config.n_layer):
                for dp in _divisors(training.global_batch):
                    yield tp, pp, dp


@lru_cache(maxsize=256)
def _divisors(n: int) -> tuple[int, ...]:
    """All divisors of n; cached, since a search needs those of few numbers thousands of times."""
    small = [d for d in range(1, isqrt(n) + 1) if n % d == 0]
    return tuple(sorted({*small, *(n // d for d in small)}))


def _memory(training: Training) -> float:
    return training.device.memory_bytes or 0.0


# --- What would work -----------------------------------------------------------------------------


def _advise(training: Training, n_devices: int, zero_stage: int) -> Refusal:
    needed = [_memory_bytes(training, s) for s in splits(training, n_devices, zero_stage)]
    if not needed:
        return _no_division(training, n_devices)
    return _no_room(training, n_devices, zero_stage, min(needed))


def _no_division(training: Training, n_devices: int) -> Refusal:
    counts = sorted({tp * pp * dp for tp, pp, dp in _grids(training)})
    near = [max(n for n in counts if n < n_devices), *(n for n in counts if n > n_devices)][:2]
    config = training.config
    fields: dict = dict(n_head=config.n_head, d_ff=hidden_units(config), n_layer=config.n_layer)
    fields |= dict(nodes=training.network.node_devices, batch=training.global_batch)
    near_by = dict(near=", ".join(map(str, near)))
    return Refusal("n_devices", quote(n_devices), FACTORS, fields | near_by)


def _no_room(training: Training, n_devices: int, zero_stage: int, least: float) -> Refusal:
    """Says the fewest devices that would work, or the memory needed with any number of them."""
    leanest: dict[int, float] = {}
    for tp, pp, dp in _grids(training):
        sizes = tp, pp, dp, training.global_batch // dp  # micro-batches of one sequence need least
        for recompute in RECOMPUTE:
            split = Split(*sizes, zero_stage=zero_stage, recompute=recompute)
            needed = _memory_bytes(training, split)
            leanest[split.n_devices] = min(needed, leanest.get(split.n_devices, needed))
    memory, device = _memory(training), training.device.name
    fields = dict(memory=significant(memory / GB), device=device, least=f"{least / GB:.1f}")
    enough = [n for n, needed in leanest.items() if n > n_devices and needed <= memory]
    if enough:
        return Refusal("n_devices", quote(n_devices), MORE, fields | dict(n=min(enough)))
    fields["least"] = f"{min(leanest.values()) / GB:.1f}"
    return Refusal("device", quote(device), NEVER, fields)


check_module(__name__)
