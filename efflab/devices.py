"""What devices can do at best: datasheet peaks, for rooflines and plans. No torch here."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from efflab.arguments import check_module
from efflab.errors import require, require_one_of
from efflab.rules import Infinite, Positive, Size

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
    inside_bytes_per_second: Positive = 300e9
    outside_bytes_per_second: Positive = 25e9


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
    peak_flops: dict[str, Positive]
    memory_bandwidth: Infinite
    memory_bytes: Positive | None
    source: str
    cluster: Cluster = Cluster()

    def __post_init__(self):
        fast = self.memory_bandwidth > 0
        require(fast, "memory_bandwidth", self.memory_bandwidth, "a number above {low}", low=0)

    def peak(self, dtype: str) -> float:
        """FLOP/s in `dtype`; a type that the device does not compute in is a `ValueError`."""
        require_one_of(f"dtype for {self.name}", dtype, self.peak_flops)
        return self.peak_flops[dtype]

    def ridge(self, dtype: str) -> float:
        """FLOP per byte above which arithmetic, not memory, is the limit (Williams et al. 2009)."""
        return self.peak(dtype) / self.memory_bandwidth


def _device(name, source, bandwidth, tflops, memory=None, cluster=Cluster()):
    """Datasheets write "GB" for both: bandwidths are 10^9 bytes a second, memories 2^30 bytes."""
    peaks = {dtype: value * TERA for dtype, value in tflops.items()}
    memory_bytes = None if memory is None else memory * GIB
    return Device(name, peaks, bandwidth * GIGA, memory_bytes, source, cluster)


_TABLES = tomllib.loads(Path(__file__).with_name("devices.toml").read_text("utf-8"))
_CLUSTERS = {name: Cluster(*sizes) for name, sizes in _TABLES["cluster"].items()}
DEVICES: dict[str, Device] = {
    name: _device(name, cluster=_CLUSTERS[row.pop("cluster", "a100")], **row)
    for name, row in _TABLES["device"].items()
}
"""Devices by name, each source as sure as it says; data/published/devices_today.csv has more.
`bench.calibrate()` measures the reader's own machine as one more."""


def own_device(tflops: Positive, gb: Positive, gbps: Positive) -> Device:
    """A device of the reader's own: dense TFLOP/s in 16 bits, memory as labelled (GiB), GB/s.

    >>> own_device(100, 24, 1000).ridge("bf16")
    100.0
    """
    for name, value in dict(tflops=tflops, gb=gb, gbps=gbps).items():
        require(value <= MOST, name, value, "at most {most}", most=MOST)
    return _device("your own", "its owner", gbps, dict(fp16=tflops, bf16=tflops), gb)


check_module(__name__)
