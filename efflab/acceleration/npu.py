"""An NPU against a GPU on the same matrix products, by one model for both.

    seconds = max(launch, multiplying, reading the second operand)

Multiplying takes the time at peak over the utilization: an NPU loses what its systolic array leaves
idle (`systolic.Product.cycles`), a GPU what its tiles leave idle. Of a product (m,k) @ (k,n) only
the k n values come from memory; the other operand and the result stay on the chip. A launch, the
memory's latency in it, runs beside the work before it, as `fusion.LaunchModel` has it. Cache misses
and bank conflicts are neglected for both, and so is energy: no datasheet gives it for a product.
"""

from dataclasses import dataclass
from typing import Annotated

from efflab.acceleration.systolic import DATAFLOWS, Product
from efflab.arguments import check_module
from efflab.devices import DEVICES, Device
from efflab.errors import require, require_one_of
from efflab.rules import Infinite, NonNegative, Positive, Size

DTYPE_BYTES = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "fp8": 1, "int8": 1}
PROCESSORS = {"V100 SXM2": 80, "A100 40GB": 108, "A100 80GB SXM": 108, "H100 SXM": 132}
"""Streaming multiprocessors (NVIDIA's architecture whitepapers); each computes one tile at once."""
TILES = (128, 64, 32)
"""Sides of the square output tiles that a GPU kernel may use; the model takes the best."""


@dataclass(frozen=True)
class Npu:
    """One systolic array with its memory: one `dtype` multiply-accumulate per cell and cycle.

    `overlap`: a second register in each cell hides the loading (`systolic.overlapped_cycles`).
    """

    name: str
    rows: Size
    cols: Size
    hertz: Positive
    memory_bandwidth: Infinite  # bytes per second
    dataflow: Annotated[str, DATAFLOWS] = "ws"
    dtype: Annotated[str, tuple(DTYPE_BYTES)] = "int8"
    overlap: bool = True

    def __post_init__(self):
        bandwidth = self.memory_bandwidth
        require(bandwidth > 0, "memory_bandwidth", bandwidth, "a positive number")

    @property
    def peak_ops(self) -> float:
        """Operations per second, 2 per multiply-accumulate."""
        return 2 * self.rows * self.cols * self.hertz


TPU_V1 = Npu("TPUv1", 256, 256, 700e6, DEVICES["TPUv1"].memory_bandwidth)
"""Jouppi et al. 2017: 256 x 256 cells at 700 MHz, weight-stationary, 34 GB/s for weights."""


def twin(device: Device, dtype: str = "int8", side: Size = 256) -> Npu:
    """A hypothetical NPU with that GPU's peak in `dtype` and bandwidth, as one systolic array."""
    hertz = device.peak(dtype) / (2 * side * side)
    name = f"{device.name} as one array"
    return Npu(name, side, side, hertz, device.memory_bandwidth, dtype=dtype)


def npu_seconds(product: Product, npu: Npu, launch: NonNegative = 0.0) -> float:
    """Seconds of a product on an NPU that starts one in `launch` seconds."""
    cycles = product.cycles(npu.rows, npu.cols, npu.dataflow, overlap=npu.overlap) + 1
    reading = _bytes(product, npu.dtype) / npu.memory_bandwidth
    return max(launch, cycles / npu.hertz, reading)


def gpu_seconds(product: Product, device: Device, dtype: str, launch: NonNegative = 0.0) -> float:
    """Seconds of a product on a GPU: whole waves of its best tile, or reading, or `launch`.

    All `count` products share the waves, as batched kernels do.
    """
    require_one_of("device", device.name, PROCESSORS)
    n = PROCESSORS[device.name]
    each = device.peak(dtype) / n  # of one multiprocessor

    def multiplying(tile: int) -> float:
        n_tiles = product.count * -(-product.m // tile) * -(-product.n // tile)
        return -(-n_tiles // n) * 2 * tile * tile * product.k / each

    fastest = min(map(multiplying, TILES))
    return max(launch, fastest, _bytes(product, dtype) / device.memory_bandwidth)


def _bytes(product: Product, dtype: str) -> float:
    require_one_of("dtype", dtype, DTYPE_BYTES)
    return product.count * product.k * product.n * DTYPE_BYTES[dtype]


check_module(__name__)
