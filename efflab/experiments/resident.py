"""Resident memory that loading and running an OpenVINO language model adds to its process.

bench.peak_bytes counts torch's tensors exactly, but sees nothing of another engine; this sees all
of it, weights and what the engine needs for itself, to a few MiB. Linux alone.
"""

import re
from pathlib import Path

import torch

from efflab.base.privacy import load
from efflab.compression import language
from efflab.config import PRESETS

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
N_RUNS = 3


def added(path: str, n: int, seq_len: int, precision: str = "f32") -> dict:
    """Most bytes that loading the model at `path` and running it on (n, seq_len) ids adds.

    Meant for `isolated`: libraries and input are there before it counts.
    """
    load("openvino")
    ids = torch.zeros(n, seq_len, dtype=torch.int64)
    before = _bytes("VmRSS")
    CLEAR.write_text("5")  # the peak begins anew
    shape = (n, seq_len)
    engine = language.language_file("", Path(path), shape, PRESETS["stdlib-gpt"], precision)
    for _ in range(N_RUNS):
        engine(ids)
    return dict(resident_bytes=_bytes("VmHWM") - before)


def _bytes(name: str) -> int:
    """A line of /proc/self/status, which is in KiB."""
    (found,) = re.findall(rf"^{name}:\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE)
    return 1024 * int(found)
