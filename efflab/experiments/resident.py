"""Resident memory that loading and running an OpenVINO language model adds to its process.

bench.peak_bytes counts torch's tensors exactly, but not another engine's memory; this counts all of
it, weights and the engine's own, to a few MiB. Linux only.
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
    """Peak bytes added by loading the model at `path` and running it on (n, seq_len) ids.

    Meant for `isolated`. Libraries and input are loaded before counting starts.
    """
    load("openvino")
    ids = torch.zeros(n, seq_len, dtype=torch.int64)
    before = _bytes("VmRSS")
    CLEAR.write_text("5")  # resets the peak (VmHWM)
    shape = (n, seq_len)
    engine = language.language_file("", Path(path), shape, PRESETS["stdlib-gpt"], precision)
    for _ in range(N_RUNS):
        engine(ids)
    return dict(resident_bytes=_bytes("VmHWM") - before)


def _bytes(name: str) -> int:
    """The value of a line of /proc/self/status, which is in KiB."""
    (kib,) = re.findall(rf"^{name}:\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE)
    return 1024 * int(kib)
