"""Measures time and memory of code, and the speed of this machine.

A time is the median of repeats with its quartiles. Two versions are compared by interleaving their
runs, because a busy machine slows both: the ratio holds where single times do not.
"""

import platform
import time
from collections.abc import Callable, Hashable
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import median, quantiles
from typing import Annotated

import torch
from torch import Tensor, nn

from efflab.arguments import check_module
from efflab.base.busy import others
from efflab.base.significant import significant
from efflab.devices import Device
from efflab.errors import require, require_one_of
from efflab.estimate import Estimate, of_median
from efflab.rules import Count, Positive, Size
from efflab.tensors import Numbers

MIB = 2**20


@dataclass(frozen=True)
class Timing:
    """Seconds of each repeat, in the order in which they ran."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median in seconds."""
        return median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Lower and upper quartile in seconds: half of the repeats lie between."""
        if len(self.seconds) == 1:
            return self.seconds * 2
        low, _, high = quantiles(self.seconds, n=4, method="inclusive")
        return low, high

    def ratio(self, other: "Timing") -> float:
        """This time as a multiple of `other`: the median of the ratios of paired repeats.

        Meant for timings of one `time_interleaved` call, where repeats stand side by side.
        """
        return median(self._ratios(other))

    def ratio_interval(self, other: "Timing") -> Estimate:
        """`ratio` with the 95 % interval of a median: no distribution is assumed."""
        return of_median(self._ratios(other))

    def _ratios(self, other: "Timing") -> list[float]:
        a, b = self.seconds, other.seconds
        require(len(a) == len(b), "other", len(b), f"a timing of {len(a)} repeats as well")
        return [x / y for x, y in zip(a, b, strict=True)]

    def __str__(self) -> str:
        low, high = self.quartiles
        ms = [significant(1e3 * t) for t in (self.median, low, high)]
        return f"{ms[0]} ms ({ms[1]} to {ms[2]}, {len(self.seconds)} repeats)"


def synchronize() -> None:
    """Wait for the GPU if this process uses one; a CPU's calls return when they are done."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


@contextmanager
def one_thread():
    """Inside the block torch uses one thread: for small products, threads cost more than they save.

    It also makes a recorded run repeatable, since the number of threads changes the rounding.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def time_calls(fn: Callable[[], object], warmup: int = 2, repeats: Size = 7) -> Timing:
    """Time `repeats` calls of `fn()` after `warmup` untimed calls."""
    return time_interleaved({"fn": fn}, warmup, repeats)["fn"]


def time_interleaved(
    fns: dict[Hashable, Callable[[], object]], warmup: Count = 2, repeats: Size = 7
) -> dict[Hashable, Timing]:
    """Time several functions interleaved, so that `ratio` can compare them.

    Every other round runs in reverse order, so that no function always follows the same one and
    finds the caches as that one leaves them.
    """
    require(bool(fns), "fns", fns, "at least one function")
    seconds: dict[Hashable, list[float]] = {name: [] for name in fns}
    with others.watched():
        for i in range(-warmup, repeats):
            order = list(fns) if i % 2 == 0 else list(reversed(fns))
            for name in order:
                synchronize()
                start = time.perf_counter()
                fns[name]()
                synchronize()
                if i >= 0:
                    seconds[name].append(time.perf_counter() - start)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


@dataclass(frozen=True)
class Comparison:
    """Functions timed against a baseline, and the baseline against itself (A/A).

    `timings`: by name, the baseline's own under "baseline"; `ratios`: name -> time as a multiple of
    the baseline's, with its 95 % interval; `again`: the same for the baseline's second run.
    """

    timings: dict[Hashable, Timing]
    ratios: dict[Hashable, Estimate]
    again: Estimate

    @property
    def band(self) -> float:
        """The A/A noise: how far from 1 the baseline's ratio to itself lies, 0.03 = 3 %."""
        return self.again.band

    def differs(self, name: Hashable) -> bool:
        """Whether `name`'s whole interval lies outside 1 plus or minus `band`."""
        require_one_of("name", name, self.ratios)
        ratio = self.ratios[name]
        return ratio.low > 1 + self.band or ratio.high < 1 - self.band


def compare(
    baseline: Callable[[], object],
    fns: dict[Hashable, Callable[[], object]],
    warmup: int = 2,
    repeats: Size = 11,
) -> Comparison:
    """Time `fns` interleaved with `baseline`, which runs twice in each round.

    The difference between its two runs is this machine's current noise: a ratio inside that band
    shows no difference.

        result = compare(old, {"new": new})
        result.ratios["new"].mean, result.differs("new")   # 0.52, True
    """
    require(not {"baseline", "again"} & set(fns), "fns", list(fns), "no name 'baseline' or 'again'")
    # one function under two names, so that whatever is slow at that moment hits both alike
    timings = time_interleaved({"baseline": baseline, **fns, "again": baseline}, warmup, repeats)
    again = timings.pop("again").ratio_interval(timings["baseline"])
    ratios = {name: timings[name].ratio_interval(timings["baseline"]) for name in fns}
    return Comparison(timings, ratios, again)


def peak_bytes(fn: Callable[[], object], device: str = "cpu") -> int:
    """Peak bytes of tensors on `device` while `fn()` runs, beyond what was allocated before.

    On a CPU torch's allocator reports each allocation to the profiler, so the figure is exact and
    repeatable, unlike the process's resident memory; memory from outside the allocator (scratch
    space of oneDNN, numpy arrays) is not counted. On a GPU it is the allocator's own peak.
    """
    require_one_of("device", device, ("cpu", "cuda"))
    if device == "cuda":
        require(torch.cuda.is_available(), "device", device, "'cpu': there is no GPU here")
        synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        fn()
        synchronize()
        return torch.cuda.max_memory_allocated() - before
    from efflab.profile import allocations

    return max(accumulate(allocations(fn), initial=0))


def saved_bytes(module: nn.Module, *inputs: Numbers) -> int:
    """Bytes that autograd keeps for the backward pass of `module(*inputs)`.

    Each storage counts once however many operators save it; parameters and buffers do not count.
    The storages stay referenced until the end, so that no address is reused.
    """
    own = {t.untyped_storage().data_ptr() for t in [*module.parameters(), *module.buffers()]}
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage
        # without its history: an operator that saved its own output would never be freed
        return tensor.detach()

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        module(*inputs)
    return sum(storage.nbytes() for storage in storages.values())


def cpu_name() -> str:
    """The processor's name as this system gives it."""
    lines = _cpu_info().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor() or platform.machine()


def cpu_revision() -> str:
    """Family, model and stepping, which tell CPUs of one name apart; "" where they are unknown."""
    lines = [line.split(":", 1) for line in _cpu_info().splitlines() if ":" in line]
    first = {name.strip(): value.strip() for name, value in reversed(lines)}
    return "-".join(first[key] for key in ("cpu family", "model", "stepping") if key in first)


def cpu_features() -> dict[str, bool]:
    """Which low-precision instructions this CPU has; all False where the system does not say.

    `vnni` multiplies and adds 8-bit numbers in one step, `amx` whole tiles of them; `bf16`
    multiplies bfloat16. Without `vnni` three instructions do the work of one.
    """
    flags = set(_cpu_info().split())
    arm = platform.machine() in ("aarch64", "arm64")
    return {
        "avx2": "avx2" in flags,
        "avx512": "avx512f" in flags,
        "vnni": bool(flags & {"avx512_vnni", "avx_vnni"}) or (arm and "asimddp" in flags),
        "amx": "amx_int8" in flags,
        "bf16": bool(flags & {"avx512_bf16", "amx_bf16"}) or (arm and "bf16" in flags),
    }


def _cpu_info() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return ""


def calibrate(
    seconds: Positive = 2.0, size: Size = 1024, copy_bytes: Annotated[int, 8] = 128 * MIB
) -> Device:
    """This machine's CPU as a `Device`: the best fp32 matrix product and copy seen in `seconds`.

    The peak is the best repeat, since a roof is an upper bound, on as many threads as torch uses
    now. A copy of n bytes moves 2 n: it reads and writes. Arrays are far larger than the caches;
    operators whose data stays in a cache can exceed this bandwidth.
    """
    import psutil

    a, b = torch.randn(size, size), torch.randn(size, size)
    product = torch.empty(size, size)
    source = torch.ones(copy_bytes // 4)
    target = torch.empty_like(source)
    n_threads = torch.get_num_threads()
    matmul = _best(lambda: torch.mm(a, b, out=product), seconds / 2)
    copy = _best(lambda: target.copy_(source), seconds / 2)
    return Device(
        name=f"{cpu_name()}, {n_threads} thread{'s' if n_threads > 1 else ''}",
        peak_flops={"fp32": 2 * size**3 / matmul},
        memory_bandwidth=2 * source.nbytes / copy,
        memory_bytes=psutil.virtual_memory().total,
        source=f"measured here: {size} x {size} matrix product, copy of {copy_bytes // MIB} MiB",
    )


def _best(fn: Callable[[], object], seconds: float) -> float:
    """Seconds of the fastest call of `fn()` among those that fit into `seconds`, at least two."""
    fn()
    calls: list[float] = []
    end = time.perf_counter() + seconds
    while len(calls) < 2 or time.perf_counter() < end:
        start = time.perf_counter()
        fn()
        calls.append(time.perf_counter() - start)
    return min(calls)


check_module(__name__)
