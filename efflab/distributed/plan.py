"""The best tensor x pipeline x data split of a training run that fits the devices' memory.

All splits are tried (Narayanan et al. 2021, section 3, give heuristics for the same choice);
`efflab.distributed.split` has the cost model.
"""

from collections.abc import Iterator
from functools import lru_cache
from math import gcd, isqrt

from efflab.arguments import check_arguments, unchecked
from efflab.base.significant import significant
from efflab.config import ModelConfig
from efflab.devices import Device
from efflab.distributed.split import RECOMPUTE, Cluster, Split, Training
from efflab.distributed.split import Plan as Plan
from efflab.rules import Size

GB = 1e9


@check_arguments
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
    (8, 16, 8)
    """
    training = Training(config, device, global_batch, seq_len, cluster or Cluster())
    return rank_plans(training, n_devices, zero_stage)[0]


@check_arguments
def rank_plans(training: Training, n_devices: Size, zero_stage: int = 0) -> list[Plan]:
    """`fitting_plans`, at least one; if there is none, a `ValueError` says what would work."""
    plans = fitting_plans(training, n_devices, zero_stage)
    if not plans:
        raise ValueError(_advise(training, n_devices, zero_stage))
    return plans


@check_arguments
def fitting_plans(training: Training, n_devices: Size, zero_stage: int = 0) -> list[Plan]:
    """Every split that fits into memory, the fastest first; ties by less memory."""
    evaluate = unchecked(Training.evaluate)
    plans = (evaluate(training, split) for split in splits(training, n_devices, zero_stage))
    memory = _memory(training)
    fitting = (plan for plan in plans if plan.memory_bytes <= memory)
    return sorted(fitting, key=lambda plan: (plan.step_seconds, plan.memory_bytes))


@check_arguments
def splits(training: Training, n_devices: Size, zero_stage: int = 0) -> Iterator[Split]:
    """All non-interleaved splits over `n_devices`, with all micro-batches and recomputations."""
    for tp, pp, dp in _grids(training):
        if tp * pp * dp == n_devices:
            for n_microbatches in _divisors(training.global_batch // dp):
                for recompute in RECOMPUTE:
                    sizes = tp, pp, dp, n_microbatches
                    yield Split(*sizes, zero_stage=zero_stage, recompute=recompute)


def _grids(training: Training) -> Iterator[tuple[int, int, int]]:
    """Each (tp, pp, dp) that divides heads and hidden units (tp within a node), layers, batch."""
    config = training.config
    for tp in _divisors(gcd(config.n_head, config.d_ff)):
        if tp <= training.cluster.node_devices:
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


def _advise(training: Training, n_devices: int, zero_stage: int) -> str:
    needed = [training.memory_bytes(s) for s in splits(training, n_devices, zero_stage)]
    if not needed:
        return _no_division(training, n_devices)
    return _no_room(training, n_devices, zero_stage, min(needed))


def _no_division(training: Training, n_devices: int) -> str:
    counts = sorted({tp * pp * dp for tp, pp, dp in _grids(training)})
    near = [max(n for n in counts if n < n_devices), *(n for n in counts if n > n_devices)][:2]
    config = training.config
    return (
        f"n_devices={n_devices}: expected a product of a divisor of n_head={config.n_head} and "
        f"d_ff={config.d_ff} up to {training.cluster.node_devices}, one of n_layer="
        f"{config.n_layer} and one of global_batch={training.global_batch}; "
        f"next to it: {' and '.join(map(str, near))}"
    )


def _no_room(training: Training, n_devices: int, zero_stage: int, least: float) -> str:
    """Says the fewest devices that would work, or the memory needed with any number of them."""
    leanest: dict[int, float] = {}
    for tp, pp, dp in _grids(training):
        needed = _least_bytes(training, tp, pp, dp, zero_stage)
        leanest[tp * pp * dp] = min(needed, leanest.get(tp * pp * dp, needed))
    memory = _memory(training)
    enough = [n for n, needed in leanest.items() if n > n_devices and needed <= memory]
    here = f"here the leanest split needs {least / GB:.1f} GB a device"
    if enough:
        expected = f"{min(enough)} or more for {_device_text(training)}"
        return f"n_devices={n_devices}: expected {expected}; {here}"
    never = f"split over any number it needs {min(leanest.values()) / GB:.1f} GB"
    own = significant(memory / GB)
    return f"device={training.device.name!r}: expected more than its {own} GB; {never}"


def _least_bytes(training: Training, tp: int, pp: int, dp: int, zero_stage: int) -> float:
    """Least bytes per device on this grid: micro-batches of one sequence."""
    splits = (
        Split(tp, pp, dp, training.global_batch // dp, zero_stage=zero_stage, recompute=how)
        for how in RECOMPUTE
    )
    return min(training.memory_bytes(split) for split in splits)


def _device_text(training: Training) -> str:
    return f"{training.device.name} of {significant(_memory(training) / GB)} GB"
