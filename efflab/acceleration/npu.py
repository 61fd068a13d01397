"""An NPU against a GPU on the same matrix products, by one model for both.

    seconds = overhead + max(multiplying, reading the second operand)

Multiplying takes the time at peak over the utilization: an NPU loses what its systolic array leaves
idle (`systolic.gemm_cycles`), a GPU what its tiles leave idle. Of a product (m,k) @ (k,n) only the
k n values come from memory; the other operand and the result stay on the chip. Cache misses, bank
conflicts and software overhead are neglected for both, and so is energy: no datasheet gives it for
a product.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from efflab.acceleration.systolic import Product, fold_cycles, folds, map_sizes
from efflab.arguments import check_arguments
from efflab.devices import DEVICES, Device
from efflab.errors import require, require_one_of
from efflab.rules import Infinite, Size

DTYPE_BYTES = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "fp8": 1, "int8": 1}
PROCESSORS = {"V100 SXM2": 80, "A100 40GB": 108, "A100 80GB SXM": 108, "H100 SXM": 132}
"""Streaming multiprocessors (NVIDIA's architecture whitepapers); each computes one tile at once."""
TILES = (128, 64, 32)
"""Sides of the square output tiles that a GPU kernel may use; the model takes the best."""


@check_arguments
@dataclass(frozen=True)
class Npu:
    """One systolic array with its memory: one `dtype` multiply-accumulate per cell and cycle."""

    name: str
    rows: int
    cols: int
    hertz: float
    memory_bandwidth: Infinite  # bytes per second
    dataflow: str = "ws"
    dtype: str = "int8"

    @property
    def peak_ops(self) -> float:
        """Operations per second, 2 per multiply-accumulate."""
        return 2 * self.rows * self.cols * self.hertz


TPU_V1 = Npu("TPUv1", 256, 256, 700e6, DEVICES["TPUv1"].memory_bandwidth)
"""Jouppi et al. 2017: 256 x 256 cells at 700 MHz, weight-stationary, 34 GB/s for weights."""


@check_arguments
def twin(device: Device, dtype: str = "int8", side: Size = 256) -> Npu:
    """A hypothetical NPU with that GPU's peak in `dtype` and bandwidth, as one systolic array."""
    hertz = device.peak(dtype) / (2 * side * side)
    name = f"{device.name} as one array"
    return Npu(name, side, side, hertz, device.memory_bandwidth, dtype=dtype)


@check_arguments
def npu_seconds(product: Product, npu: Npu, overhead: float = 0.0) -> float:
    """Seconds of a product on an NPU; `overhead` seconds to start it."""
    _require_overhead(overhead)
    size = product.m, product.n, product.k
    n_folds = product.count * folds(*size, npu.rows, npu.cols, npu.dataflow)
    stream = map_sizes(*size, npu.dataflow)[2]
    cycles = n_folds * fold_cycles(stream, npu.rows, npu.cols, npu.dataflow)
    return overhead + max(cycles / npu.hertz, _bytes(product, npu.dtype) / npu.memory_bandwidth)


@check_arguments
def gpu_seconds(product: Product, device: Device, dtype: str, overhead: float = 0.0) -> float:
    """Seconds of a product on a GPU: whole waves of its best tile, or reading.

    All `count` products share the waves, as batched kernels do.
    """
    _require_overhead(overhead)
    require_one_of("device", device.name, PROCESSORS)
    n = PROCESSORS[device.name]
    each = device.peak(dtype) / n  # of one multiprocessor

    def multiplying(tile: int) -> float:
        n_tiles = product.count * -(-product.m // tile) * -(-product.n // tile)
        return -(-n_tiles // n) * 2 * tile * tile * product.k / each

    fastest = min(map(multiplying, TILES))
    return overhead + max(fastest, _bytes(product, dtype) / device.memory_bandwidth)


@check_arguments
def saving(product: Product, npu: Npu, device: Device, dtype: str, overhead: float = 0.0) -> float:
    """By how much (1 = all) the NPU's time is below the GPU's; negative where it is longer.

    >>> from efflab.devices import DEVICES
    >>> wide = Product("FFN up", 8192, 3072, 768)
    >>> round(saving(wide, TPU_V1, DEVICES["V100 SXM2"], "fp32"), 2)
    0.81
    """
    ours = npu_seconds(product, npu, overhead)
    return 1 - ours / gpu_seconds(product, device, dtype, overhead)


@check_arguments
def share_at_least(values: Sequence[float], threshold: float) -> float:
    """Share (0..1) of the values that reach the threshold."""
    require(len(values) > 0, "values", values, "at least one value")
    return sum(v >= threshold for v in values) / len(values)


def _bytes(product: Product, dtype: str) -> float:
    return product.count * product.k * product.n * DTYPE_BYTES[dtype]


def _require_overhead(overhead: float) -> None:
    require(overhead >= 0, "overhead", overhead, "a number of at least {low}", low=0)
