"""Notebook 08's deployment: MiniLM as one OpenVINO file, run on whatever this machine has."""

import tempfile
from functools import lru_cache
from pathlib import Path

import torch

from efflab import bench, evaluate, points
from efflab.compression import engines
from efflab.errors import require_int
from efflab.lab import tr
from efflab.privacy import load

DEVICES = ("CPU", "GPU", "NPU")
"""OpenVINO's plugins: any x86 or Arm CPU, Intel's graphics, Intel's NPU."""


@lru_cache(maxsize=1)
def available() -> dict[str, str]:
    """What this machine has: OpenVINO's name of each device -> the device's own name."""
    core = load("openvino").Core()
    names = {d: core.get_property(d, "FULL_DEVICE_NAME") for d in core.available_devices}
    # a maker's name has no Chinese: with a hard space, nobody asks for one
    return {d: name.strip().replace(" ", "\N{NO-BREAK SPACE}") for d, name in names.items()}


def device_rows() -> list[dict]:
    """The three kinds of device, and whether this machine has one."""
    here = available()
    found = []
    for kind in DEVICES:
        names = [name for device, name in here.items() if device.split(".")[0] == kind]
        found.append({"device": kind, "here": bool(names), "name": "/".join(names) or "-",
                      "kind": "measured"})  # fmt: skip
    return found


@torch.no_grad()
def deployed(n_tokens: int, batch: int = 1, repeats: int = 11) -> tuple[list[dict], bench.Timing]:
    """(a row a device, torch's own time): time over eager torch, and cosine to its embedding.

    The file is written once; an NPU wants fixed shapes, so each device compiles it for this one.
    """
    require_int("n_tokens", n_tokens)
    require_int("batch", batch)
    ov = load("openvino")
    model, _ = points.encoder()
    rng = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, 20000, (batch, n_tokens), generator=rng)
    mask = torch.ones_like(ids)
    exact = engines.mean_pool(model.encode(ids, mask), mask)
    inputs = (ids.numpy(), mask.numpy())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "minilm.xml"
        ov.save_model(engines.openvino_model(model), path, compress_to_fp16=False)
        core, compiled = ov.Core(), {}
        for device in available():
            read = core.read_model(path)
            read.reshape({port: [batch, n_tokens] for port in read.inputs})
            compiled[device] = core.compile_model(read, device, _options(device))
        size = engines.file_bytes(path, path.with_suffix(".bin"))
    calls = {device: lambda c=c: c(inputs) for device, c in compiled.items()}
    result = bench.compared(lambda: model.encode(ids, mask), calls, warmup=2, repeats=repeats)
    found = []
    for device, c in compiled.items():
        vectors = engines.mean_pool(torch.from_numpy(c(inputs)[0]), mask)
        ratio = result.ratios[device]
        found.append({
            "device": device, "file (MB)": size / 1e6,
            "time (ms)": 1e3 * result.timings[device].median, "time / torch": ratio.mean,
            "interval, low": ratio.low, "interval, high": ratio.high,
            "outside the noise": result.differs(device),
            "cosine to torch": evaluate.cosines(exact, vectors)["min"], "kind": "measured",
        })  # fmt: skip
    return found, result.timings["baseline"]


def _options(device: str) -> dict:
    """fp32 on as many threads as torch, where the device has threads."""
    if not device.startswith("CPU"):
        return {}
    return {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "ENABLE_CPU_PINNING": False}  # fmt: skip


def deployed_rows(n_tokens: int, repeats: int = 11) -> list[dict]:
    """`deployed`, one text, under torch's own row."""
    rows, torchs = deployed(n_tokens, repeats=repeats)
    first = {"device": tr("torch, eager"), "time (ms)": 1e3 * torchs.median, "time / torch": 1.0,
             "kind": "measured"}  # fmt: skip
    return [dict.fromkeys(rows[0]) | first, *rows]
