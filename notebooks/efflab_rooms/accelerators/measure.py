"""Notebook 08's numbers: an NPU against GPUs, MiniLM on this machine's devices, an int8 unit."""

import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from statistics import median

import numpy as np
import torch

from efflab import bench, evaluate, points
from efflab.acceleration import fpga, npu, systolic
from efflab.base.privacy import load
from efflab.compression import affine, engines, int8
from efflab.config import PRESETS
from efflab.data import read_published
from efflab.devices import DEVICES
from efflab.errors import require_int, require_one_of
from efflab.experiments import fpga_synthesis, fpga_synthesis_2, gpu_bench
from efflab.experiments.record import read_record

# --- An NPU against a GPU ------------------------------------------------------------------------

MAP_MODEL, BATCHES = "bert-base", (1, 2, 4, 8, 16, 32, 64)
PRECISIONS = {
    gpu: [dtype for dtype in ("fp32", "fp16", "int8") if dtype in DEVICES[gpu].peak_flops]
    for gpu in ("V100 SXM2", "A100 40GB", "H100 SXM")
}
NPUS = TPU, TWIN = "TPUv1", "an array as strong as the GPU"
BLOCK, RECORDED = "the whole block", "NVIDIA H100 80GB HBM3"


def launch_seconds() -> float:
    """Recorded seconds from one small kernel to the next: its launch and the memory's latency."""
    return gpu_bench.read_launches()[RECORDED].overhead


def model_check_rows(dtypes: Sequence[str] = ("fp32", "fp16")) -> list[dict]:
    """Square products on an H100: the model's time beside the recorded one."""
    rows = []
    for row in gpu_bench.read_part(gpu_bench.PRODUCTS)[RECORDED]["rows"]:
        n, dtype = row["n"], row["dtype"]
        if dtype in dtypes:
            square = systolic.Product("square", n, n, n)
            model = npu.gpu_seconds(square, DEVICES["H100 SXM"], dtype, launch_seconds())
            recorded = 2 * square.macs / row["tflops"] / 1e12
            times = {"model (µs)": 1e6 * model, "recorded (µs)": 1e6 * recorded}
            rows.append({"n": n, "dtype": dtype} | times | {"ratio": model / recorded})
    return rows


def rival(against: str, gpu: str, dtype: str, *, overlap: bool = True) -> npu.Npu:
    """One of `NPUS`; the twin has the GPU's own peak, precision and bandwidth."""
    require_one_of("against", against, NPUS)
    array = npu.TPU_V1 if against == TPU else npu.twin(DEVICES[gpu], dtype)
    return replace(array, overlap=overlap)


def block_seconds(product_seconds: Callable, seq_len: int) -> np.ndarray:
    """(products + 1, batches): seconds of each product of a block, and last their sum."""
    require_int("seq_len", seq_len)
    blocks = [systolic.block_products(PRESETS[MAP_MODEL], seq_len, batch) for batch in BATCHES]
    cells = np.array([[product_seconds(p) for p in block] for block in blocks]).T
    return np.vstack([cells, cells.sum(axis=0)])


def ratios(
    array: npu.Npu, gpu: str, dtype: str, seq_len: int, launch=0.0, npu_launch=None
) -> np.ndarray:
    """(products + 1, batches): the NPU's time over the GPU's; last those of the whole block.

    `launch`: seconds to start a product; `npu_launch`: the NPU's own, where it has another.
    """
    require_one_of("gpu", gpu, PRECISIONS)
    own = launch if npu_launch is None else npu_launch
    ours = block_seconds(lambda p: npu.npu_seconds(p, array, own), seq_len)
    return ours / block_seconds(lambda p: npu.gpu_seconds(p, DEVICES[gpu], dtype, launch), seq_len)


def block_rows(against: str, seq_len: int, batches: Sequence[int]) -> list[dict]:
    """The NPU's time over the GPU's for a whole block, with a launch a product on both sides."""
    rows = []
    for gpu, dtypes in PRECISIONS.items():
        for dtype in dtypes:
            array = rival(against, gpu, dtype)
            whole = ratios(array, gpu, dtype, seq_len, launch_seconds())[-1]
            cells = {f"batch {b}": whole[BATCHES.index(b)] for b in batches}
            rows.append({"GPU": f"{gpu}, {dtype}"} | cells)
    return rows


# --- MiniLM on the devices of this machine -------------------------------------------------------


@lru_cache(maxsize=1)
def device_names() -> dict[str, str]:
    """OpenVINO's name of each device that is here -> the device's own name."""
    core = load("openvino").Core()
    names = {d: core.get_property(d, "FULL_DEVICE_NAME") for d in core.available_devices}
    # a maker's name has no Chinese: with a hard space, nobody asks for one
    return {d: name.strip().replace(" ", "\N{NO-BREAK SPACE}") for d, name in names.items()}


def compile_for_devices(model: torch.nn.Module, shape: Sequence[int]) -> tuple[dict, int]:
    """({device: MiniLM for token ids of that shape}, bytes of the one file that all are made from).

    The shape is fixed because an NPU's compiler wants it so.
    """
    ov = load("openvino")
    core, programs = ov.Core(), {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "minilm.xml"
        ov.save_model(engines.openvino_model(model), path, compress_to_fp16=False)
        for device in device_names():
            network = core.read_model(path)
            network.reshape({port: list(shape) for port in network.inputs})
            programs[device] = core.compile_model(network, device, _options(device))
        return programs, engines.file_bytes(path, path.with_suffix(".bin"))


def _options(device: str) -> dict:
    """fp32 on as many threads as torch, where the device has threads."""
    if not device.startswith("CPU"):
        return {}
    threads = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "ENABLE_CPU_PINNING": False}
    return {"INFERENCE_PRECISION_HINT": "f32"} | threads


@torch.no_grad()
def deployment_rows(n_tokens: int, repeats: int = 11) -> list[dict]:
    """One text in eager torch and on each device: time, and cosine to torch's embedding."""
    require_int("n_tokens", n_tokens)
    model, _ = points.encoder()
    ids = torch.randint(1000, 20000, (1, n_tokens), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    embedding = engines.mean_pool(model.encode(ids, mask), mask)
    programs, n_bytes = compile_for_devices(model, ids.shape)
    inputs = ids.numpy(), mask.numpy()
    calls = {device: partial(program, inputs) for device, program in programs.items()}
    result = bench.compare(lambda: model.encode(ids, mask), calls, warmup=2, repeats=repeats)
    rows = []
    for device, call in calls.items():
        vectors = engines.mean_pool(torch.from_numpy(call()[0]), mask)
        ratio = result.ratios[device]
        rows.append(
            {
                "device": device,
                "file (MB)": n_bytes / 1e6,
                "time (ms)": 1e3 * result.timings[device].median,
                "time / torch": ratio.mean,
                "interval, low": ratio.low,
                "interval, high": ratio.high,
                "outside the noise": result.differs(device),
                "cosine to torch": evaluate.cosines(embedding, vectors)["min"],
            }
        )
    ms = 1e3 * result.timings["baseline"].median
    eager = {"device": "torch, eager", "time (ms)": ms, "time / torch": 1.0}
    return [dict.fromkeys(rows[0]) | eager, *rows]


# --- The int8 unit, bit for bit ------------------------------------------------------------------

TEXT = "Return a shallow copy of the list, sorted in ascending order."
N_TOKENS, N_CHANNELS = 8, 8  # of the product that is simulated: its k is MiniLM's width, 384


@lru_cache(maxsize=1)
def attention_codes() -> tuple[np.ndarray, np.ndarray]:
    """int8 codes of what MiniLM's first attention is given (8,384), and of its queries' weights.

    One scale for the input, one an output channel for the weights (384,8); symmetric both.
    """
    model, tokenizer = points.encoder()
    batch = tokenizer([TEXT], return_tensors="pt")
    inputs = {}
    with int8.watching(model, lambda name, x: inputs.setdefault(name, x.detach())):
        model.encode(batch["input_ids"], batch["attention_mask"])
    (name,) = [n for n in inputs if re.fullmatch(r"layers\.0\..*qkv", n)]
    weight = model.get_submodule(name).weight.detach()[:N_CHANNELS]
    a = affine.quantize(inputs[name].reshape(-1, weight.shape[1])[:N_TOKENS], 8).codes()
    return a.numpy(), affine.quantize(weight, 8, axis=0).codes().numpy().T


@lru_cache(maxsize=8)
def simulate_unit(side: int) -> tuple[int, int]:
    """(wrong values, clocks) of that product on a simulated unit of side x side cells."""
    require_int("side", side)
    a, b = attention_codes()
    product, clocks = fpga.simulate(a, b, side, side)
    return int((product != a.astype(int) @ b.astype(int)).sum()), clocks


def cell_verilog() -> str:
    """One inner cell of the grid as Yosys writes it, each port declared once."""
    (cell,) = re.findall(r"module \\array\.cell_1_1 .*?endmodule", fpga.verilog(3, 3), re.DOTALL)
    ports = re.findall(r"(?:input|output) (?:signed )?(?:\[.*?\] )?(\w+);", cell)
    again = re.compile(rf"\s*wire .*\b({'|'.join(ports)});")
    return "\n".join(line for line in cell.splitlines() if not again.fullmatch(line))


# --- What the unit takes of a chip ---------------------------------------------------------------


FULL_SIDE = fpga_synthesis_2.SIDE
"""The side of the one routed unit that fills a chip."""


@lru_cache(maxsize=1)
def synthesis_runs() -> list[dict]:
    """The recorded mappings and routings, those of `FULL_SIDE` last."""
    records = map(read_record, (fpga_synthesis.NAME, fpga_synthesis_2.NAME))
    return [run for record in records for run in record["runs"]]


def resources(family: str, side: int) -> fpga.Resources:
    """Recorded resources of a unit."""
    key = ("mapped", family, side)
    (run,) = [r for r in synthesis_runs() if (r["part"], r["family"], r["side"]) == key]
    return fpga.Resources(run["dsp"], run["lut"], run["ff"])


def clocks_mhz(side: int, family: str = "ecp5") -> list[float]:
    """Recorded clock of the routed unit in each placement; none where it was not routed."""
    key = ("routed", family, side)
    runs = [r for r in synthesis_runs() if (r["part"], r["family"], r["side"]) == key]
    return [r["mhz"] for r in runs if r["mhz"] is not None]


def clock_mhz(side: int, family: str = "ecp5") -> float | None:
    """The median of `clocks_mhz`; None if there is none."""
    clocks = clocks_mhz(side, family)
    return median(clocks) if clocks else None


def resources_on(chip: dict, side: int) -> fpga.Resources:
    """`resources` in a chip's family; UltraScale+ is counted with the 7 series' figures."""
    return resources("ecp5" if chip["family"] == "ECP5" else "xilinx", side)


def n_units(chip: dict, side: int) -> int:
    """How many units a chip holds side by side."""
    return resources_on(chip, side).copies(chip["dsp"], chip["lut"], chip["ff"])


# --- How long a model takes on it ----------------------------------------------------------------

SIDE, TOKENS, TARGET_MS = 4, 128, 100.0
"""The side of the units that fill a chip: the largest that was routed and that each chip holds."""


def model_clocks(seq_len: int, side: int, units: int = 1) -> int:
    """Clocks of all of MiniLM's matrix products for one text, their tiles shared by the units."""
    config, clocks = PRESETS["minilm-l6"], 0
    for p in systolic.block_products(config, seq_len):
        n_tiles = p.count * systolic.folds(p.m, p.n, p.k, side, side)
        clocks += -(-n_tiles // units) * fpga.tile_cycles(p.k, side, side)
    return config.n_layer * clocks


def model_ms(seq_len: int, side: int, mhz: float, units: int = 1) -> float:
    """Milliseconds of them at that clock."""
    return model_clocks(seq_len, side, units) / (1e3 * mhz)


def chip_rows(sides: Sequence[int]) -> list[dict]:
    """Each chip full of units of each side, at the clock of one alone and of a full chip."""
    rows, full = [], clock_mhz(FULL_SIDE)
    for chip, side in product(read_published("fpga"), sides):
        units, mhz = n_units(chip, side), (clock_mhz(side), full)
        alone, ms = (model_ms(TOKENS, side, f, units) if units else None for f in mhz)
        row = {"chip": chip["device"], "DSP": chip["dsp"], "side of the unit": side, "units": units}
        row |= {"DSP in use (%)": 100 * units * side**2 / chip["dsp"]}
        row |= {"time at a single unit's clock (ms)": alone, "time at a full chip's clock (ms)": ms}
        rows.append(row)
    return rows
