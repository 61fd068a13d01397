"""What devices can do at best: datasheet peaks, for rooflines and plans. No torch here."""

from dataclasses import dataclass

from efflab.arguments import check_module
from efflab.errors import require, require_one_of, require_positive
from efflab.rules import Infinite, Size

TERA, GIGA, GIB = 10**12, 10**9, 2**30
MOST = 10**9
"""More TFLOP/s, GiB or GB/s than any device of a reader's own has."""


@dataclass(frozen=True)
class Cluster:
    """The network: bytes per second and direction for each device, inside a node and between nodes.

    A node has as many links to others as devices, or shares what it has evenly among them. The
    default is the A100 cluster of Narayanan et al. 2021, section 5: NVLink, and one 200 Gb/s
    InfiniBand card for each of a node's 8 devices.
    """

    node_devices: Size = 8
    inside_bytes_per_second: float = 300e9
    outside_bytes_per_second: float = 25e9

    def __post_init__(self):
        for name in ("inside_bytes_per_second", "outside_bytes_per_second"):
            require_positive(name, getattr(self, name))


@dataclass(frozen=True)
class Device:
    """Peaks of one device.

    `peak_flops` maps a type ("fp32", "tf32", "fp16", "bf16", "fp8", "int8") to FLOP/s (or integer
    operations per second), 2 per multiply-accumulate, without sparsity. `memory_bandwidth` is in
    bytes per second, `memory_bytes` in bytes (None where the source does not say): an "80 GB" card
    holds 80 GiB, 85.9 GB, of which a driver and a context keep a part. `cluster`: the network of
    the vendor's servers (NVIDIA's DGX), or what joins devices without any; an A100's where nothing
    is known.
    """

    name: str
    peak_flops: dict[str, float]
    memory_bandwidth: Infinite
    memory_bytes: float | None
    source: str
    cluster: Cluster = Cluster()

    def __post_init__(self):
        for dtype, flops in self.peak_flops.items():
            require_positive(f"peak_flops[{dtype!r}]", flops)
        fast = self.memory_bandwidth > 0
        require(fast, "memory_bandwidth", self.memory_bandwidth, "a number above {low}", low=0)
        if self.memory_bytes is not None:
            require_positive("memory_bytes", self.memory_bytes)

    def peak(self, dtype: str) -> float:
        """FLOP/s in `dtype`; a type that the device does not compute in is a `ValueError`."""
        require_one_of(f"dtype for {self.name}", dtype, self.peak_flops)
        return self.peak_flops[dtype]

    def ridge(self, dtype: str) -> float:
        """FLOP per byte above which arithmetic, not memory, is the limit (Williams et al. 2009)."""
        return self.peak(dtype) / self.memory_bandwidth


A100_CLUSTER = Cluster()
# Eight devices share a DGX-1's four links of 100 Gb/s; a DGX H100 has eight of 400 Gb/s.
V100_CLUSTER = Cluster(8, 150e9, 6.25e9)
H100_CLUSTER = Cluster(8, 450e9, 50e9)


def _device(name, bandwidth_gbps, memory_label, source, cluster=A100_CLUSTER, **tera_flops):
    """Datasheets write "GB" for both: bandwidths are 10^9 bytes a second, memories 2^30 bytes."""
    peaks = {dtype: value * TERA for dtype, value in tera_flops.items()}
    memory = None if memory_label is None else memory_label * GIB
    return Device(name, peaks, bandwidth_gbps * GIGA, memory, source, cluster)


def _flat(gbps):
    """A network without nodes: a TPU's torus, and cards in the slots of one host."""
    return Cluster(8, gbps * GIGA, gbps * GIGA)


PCIE_4, PCIE_5, THUNDERBOLT_5 = _flat(32), _flat(64), _flat(15)
# A DGX H200 and a DGX B200 have the network cards of a DGX H100; the others' are not published.
B200_CLUSTER, MI300X_CLUSTER, ASCEND_CLUSTER = (
    Cluster(8, 900e9, 50e9),
    Cluster(8, 448e9),
    Cluster(8, 196e9),
)
_A100 = dict(fp32=19.5, tf32=156, fp16=312, bf16=312, int8=624)
_H100 = dict(fp32=67, tf32=494.7, fp16=989.4, bf16=989.4, fp8=1979, int8=1979)
_H200 = _H100 | dict(fp8=1978.9, int8=1978.9)
_B200 = dict(fp32=75, tf32=1125, fp16=2250, bf16=2250, fp8=4500, int8=4500)
_MI300X = dict(fp32=163.4, tf32=653.7, fp16=1307.4, bf16=1307.4, fp8=2614.9, int8=2614.9)
_L4 = dict(fp32=30.3, tf32=60, fp16=121, bf16=121, fp8=242.5, int8=242.5)
_L40S = dict(fp32=91.6, tf32=183, fp16=362.05, bf16=362.05, fp8=733, int8=733)
# In 16 bits and fp8 with sums in fp32, which GeForce cards do at half the rate of sums in fp16.
_RTX_4090 = dict(fp32=82.6, tf32=82.6, fp16=165.2, bf16=165.2, fp8=330.3, int8=660.6)
_RTX_5090 = dict(fp32=104.8, tf32=104.8, fp16=209.5, bf16=209.5, fp8=419, int8=838)
_TPU_V6E = dict(bf16=918, fp8=918, int8=1836)
_BLACKWELL = "NVIDIA Blackwell, dense: sure, memory and its bandwidth differ a little by source"
_BIN = "unsure: the bin of 376 TFLOP/s; no datasheet, bins and bandwidth differ by source"
_APPLE = "unsure: Apple prints memory alone; FLOP/s are worked out from 40 cores at 1.8 GHz"

DEVICES: dict[str, Device] = {
    device.name: device
    for device in (
        _device("V100 SXM2", 900, 32, "NVIDIA V100 datasheet", V100_CLUSTER, fp32=15.7, fp16=125),
        _device("A100 40GB", 1555, 40, "NVIDIA A100 datasheet, dense", **_A100),
        _device("A100 80GB SXM", 2039, 80, "NVIDIA A100 datasheet, dense", **_A100),
        _device("H100 SXM", 3350, 80, "NVIDIA H100, sparse halved", H100_CLUSTER, **_H100),
        _device("TPUv1", 34, None, "Jouppi et al. 2017, Table 2; bandwidth of weights", int8=92),
        _device("H200 SXM", 4800, 141, "NVIDIA H200, dense: sure", H100_CLUSTER, **_H200),
        _device("B200 SXM", 7700, 180, _BLACKWELL, B200_CLUSTER, **_B200),
        _device("MI300X", 5300, 192, "AMD, dense: sure", MI300X_CLUSTER, **_MI300X),
        _device("L4", 300, 24, "NVIDIA, dense: sure, fp32 and TF32 less", PCIE_4, **_L4),
        _device("L40S", 864, 48, "NVIDIA, dense: sure", PCIE_4, **_L40S),
        _device("RTX 4090", 1008, 24, "NVIDIA Ada, dense: sure", PCIE_4, **_RTX_4090),
        _device("RTX 5090", 1792, 32, "NVIDIA, dense: sure, TF32, INT8 less", PCIE_5, **_RTX_5090),
        _device("TPU v5e", 819, 16, "Google Cloud: sure", _flat(200), bf16=197, int8=393),
        _device("TPU v5p", 2765, 95, "Google: sure, INT8 less", _flat(600), bf16=459, int8=918),
        _device("TPU v6e", 1638, 32, "Google: sure, fp8 less", _flat(400), **_TPU_V6E),
        _device("Ascend 910B", 1600, 64, _BIN, ASCEND_CLUSTER, fp16=376, bf16=376),
        _device("M4 Max", 546, 128, _APPLE, THUNDERBOLT_5, fp32=18.4),
    )
}
"""Devices by name, each source as sure as it says; data/published/devices_today.csv has more.
`bench.calibrate()` measures the reader's own machine as one more."""


def own_device(tflops: float, gb: float, gbps: float) -> Device:
    """A device of the reader's own: dense TFLOP/s in 16 bits, memory as labelled (GiB), GB/s.

    >>> own_device(100, 24, 1000).ridge("bf16")
    100.0
    """
    for name, value in dict(tflops=tflops, gb=gb, gbps=gbps).items():
        require_positive(name, value)
        require(value <= MOST, name, value, "at most {most}", most=MOST)
    return _device("your own", gbps, gb, "its owner", fp16=tflops, bf16=tflops)


check_module(__name__)
