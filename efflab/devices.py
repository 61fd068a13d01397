"""What devices can do at best: datasheet peaks, for rooflines and plans. No torch here."""

from dataclasses import dataclass

from efflab.arguments import check_arguments
from efflab.errors import require, require_one_of, require_positive
from efflab.rules import Infinite, Size

TERA, GIGA, GIB = 10**12, 10**9, 2**30


@check_arguments
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


@check_arguments
@dataclass(frozen=True)
class Device:
    """Peaks of one device.

    `peak_flops` maps a type ("fp32", "tf32", "fp16", "bf16", "fp8", "int8") to FLOP/s (or integer
    operations per second), 2 per multiply-accumulate, without sparsity. `memory_bandwidth` is in
    bytes per second, `memory_bytes` in bytes (None where the source does not say): an "80 GB" card
    holds 80 GiB, 85.9 GB, of which a driver and a context keep a part. `cluster`: the network of
    the vendor's servers (NVIDIA's DGX); an A100's where nothing is known.
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


_A100 = dict(fp32=19.5, tf32=156, fp16=312, bf16=312, int8=624)
_H100 = dict(fp32=67, tf32=494.7, fp16=989.4, bf16=989.4, fp8=1979, int8=1979)

DEVICES: dict[str, Device] = {
    device.name: device
    for device in (
        _device("V100 SXM2", 900, 32, "NVIDIA V100 datasheet", V100_CLUSTER, fp32=15.7, fp16=125),
        _device("A100 40GB", 1555, 40, "NVIDIA A100 datasheet, dense", **_A100),
        _device("A100 80GB SXM", 2039, 80, "NVIDIA A100 datasheet, dense", **_A100),
        _device("H100 SXM", 3350, 80, "NVIDIA H100, sparse halved", H100_CLUSTER, **_H100),
        _device("TPUv1", 34, None, "Jouppi et al. 2017, Table 2; bandwidth of weights", int8=92),
    )
}
"""Devices by name; `bench.calibrate()` measures the reader's own machine as one more."""
