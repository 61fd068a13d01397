"""INT8's time over fp32's for an encoder of BERT-base's shape, on CPUs with 8-bit instructions and
without: the designs to come of `ernie-int8.latency` and `fp16-int8.serving`.

The engines are `int8_engines`' OpenVINO ones (static INT8, smoothed), as an encoder asks for them;
`case_study_latency` has those of a causal model. What decides is OpenVINO's INT8 over its own fp32,
interleaved, as in the recorded evidence; torch's fp32 is timed beside it, and so is MiniLM's shape.
Weights are random: times do not depend on them. Each case has a process of its own, so that the
interval over seeds covers processes. A busy machine is refused before and after each case; nothing
of that case is recorded then, and the next start goes on there.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from efflab import bench
from efflab.base.busy import BUSY_CORES, busy_cores, others
from efflab.bench import one_thread
from efflab.compression import engines, openvino
from efflab.compression.engines import Batch, Engine
from efflab.compression.int8 import relative_error
from efflab.config import PRESETS
from efflab.errors import require, require_one_of
from efflab.estimate import Estimate, of_mean
from efflab.experiments import case_study_latency as latency
from efflab.experiments.int8_engines import OPENVINO, OPENVINO_FP32, full_batch
from efflab.experiments.int8_engines import SHAPES as INPUTS
from efflab.experiments.provenance import machine
from efflab.experiments.record import blocks, round_floats, run_cases, with_ends
from efflab.experiments.registration import rules_for
from efflab.model import Transformer

NAME = "int8-latency"
SHAPES = {"bert-base": "bert", "minilm-l6": "minilm"}
"""Preset -> what its cases are called; the second is shown beside the first and decides nothing."""
SEEDS, REPEATS, WARMUP = tuple(range(100, 105)), 21, 1
N_CALIBRATION, N_TOKENS = 4, 64
"""Random texts for calibration, and tokens of each: the ranges change no time."""
FP32 = "torch fp32"


# --- Time ------------------------------------------------------------------------------------


def calibration(seed: int) -> list[Batch]:
    """Random texts, one a batch."""
    rng = torch.Generator().manual_seed(seed)
    texts = torch.randint(1000, 20000, (N_CALIBRATION, 1, N_TOKENS), generator=rng)
    return [(ids, torch.ones_like(ids)) for ids in texts]


def make_engines(
    shape: str, seed: int, folder: Path, seven_bits: bool | None = None
) -> dict[str, Engine]:
    """The random encoder of that shape in torch's fp32 and OpenVINO's fp32 and INT8, by name."""
    require_one_of("shape", shape, SHAPES)
    torch.manual_seed(seed)
    model, inputs = Transformer(PRESETS[shape]).eval(), calibration(seed)
    smooth = openvino.openvino_model(openvino.smooth_for_nncf(model, inputs))
    quantized = openvino.nncf_int8(smooth, inputs, seven_bits=seven_bits)
    return {
        FP32: engines.fp32(model),
        OPENVINO_FP32: engines.openvino_fp32(model, folder),
        OPENVINO: engines.openvino_engine(OPENVINO, quantized, folder / "int8.xml"),
    }


@one_thread()
def measure(
    shape: str, n: int, length: int, seed: int, repeats: int, seven_bits: bool | None = None
) -> dict:
    """Times of n texts of `length` tokens: INT8's over OpenVINO's fp32, over torch's, and A/A.

    `ratio` with the ends of its interval over repeats, `over_torch`, `again` (fp32's second run
    over its first) and `band`: medians of paired repeats. `milliseconds`: OpenVINO's fp32. `error`:
    INT8's vectors from fp32's, which reveals an engine that lacks an instruction. `busy_cores`:
    what others used meanwhile.
    """
    seven_bits = openvino.seven_bits_needed() if seven_bits is None else seven_bits
    batch = full_batch(n, length)
    with TemporaryDirectory() as folder:
        made = make_engines(shape, seed, Path(folder), seven_bits)
        calls = {name: lambda e=e: e.embed(*batch) for name, e in made.items()}
        rest = {name: calls[name] for name in (OPENVINO, FP32)}
        times = bench.compare(calls[OPENVINO_FP32], rest, WARMUP, repeats)
        exact, small = (made[name].embed(*batch) for name in (OPENVINO_FP32, OPENVINO))
        require_int8(linear_precisions(Path(folder) / "int8.xml", batch))
    row = with_ends("ratio", times.ratios[OPENVINO])
    row |= dict(over_torch=times.timings[OPENVINO].ratio(times.timings[FP32]))
    row |= dict(again=times.again.mean, band=times.band, error=relative_error(small, exact))
    row |= dict(milliseconds=1e3 * times.timings["baseline"].median, busy_cores=others.cores)
    return round_floats(row) | dict(seven_bits=seven_bits, cpu=bench.cpu_revision())


def linear_precisions(path: Path, batch: Batch) -> list[str]:
    """The format in which OpenVINO computed each linear layer of the model written to `path`."""
    compiled = openvino.compile_openvino(path)
    compiled(tuple(part.numpy() for part in batch))
    operations = compiled.get_runtime_model().get_ops()
    infos = [{k: v.astype(str) for k, v in op.get_rt_info().items()} for op in operations]
    return [i["runtimePrecision"] for i in infos if i["layerType"] == "FullyConnected"]


def require_int8(precisions: list[str]) -> None:
    """Refuse a model of which a linear layer was computed in more than 8 bits, or that has none."""
    counts, expected = dict(Counter(precisions)), "8 bits in every linear layer"
    require(bool(counts) and counts.keys() <= {"i8", "u8"}, "precisions", counts, expected)


# --- The experiment --------------------------------------------------------------------------


def limits(known: Iterable[Mapping]) -> tuple[str | None, ...]:
    """The instruction sets to run with: all; with VNNI an older CPU's too, unless the record's
    blocks `known` have a real one."""
    has_older = any(b["complete"] and not has_vnni(b) for b in known)
    return (None,) if has_older else latency.limits()


def has_vnni(block: Mapping) -> bool:
    """Whether a block's machine has 8-bit instructions."""
    return bool(block["machine"]["features"]["vnni"])


def require_one_cpu(known: Iterable[Mapping]) -> None:
    """Refuse to go on with a block that another CPU of this one's name and features began."""
    here = [block["runs"] for block in known if block["machine"] == machine()]
    begun = {run["cpu"] for runs in here for run in runs}
    revision = bench.cpu_revision()
    require(begun <= {revision}, "cpu", revision, f"{', '.join(begun)}, which began this record")


def require_idle(cores: float) -> None:
    """Refuse a machine of which others use more than half a core."""
    require(cores <= BUSY_CORES, "busy cores", round(cores, 2), f"at most {BUSY_CORES}")


def run_one(shape: str, n: int, length: int, isa: str | None, seed: int) -> dict:
    """Run one case in a separate process. `isa`: ONEDNN_MAX_CPU_ISA or None."""
    require_idle(busy_cores())
    task = dict(shape=shape, n=n, length=length, seed=seed, repeats=REPEATS)
    row = latency.run_limited(f"{__name__}:measure", task, isa)
    require_idle(row["busy_cores"])
    return row


@one_thread()
def run(*, fresh: bool = False) -> dict:
    """Every input, shape and seed, small inputs first; recorded as data/experiments/int8-latency.

    The block is this machine's; `cases` reads those of both kinds of CPU.
    """
    shape, beside = SHAPES
    known: list[dict] = []
    with suppress(ValueError):  # no record yet, or a damaged one, which is put aside below
        known = blocks(NAME)
    require_one_cpu(known)
    each = [
        dict(shape=shape, n=n, length=length, isa=isa, seed=seed)
        for (n, length), isa, shape, seed in product(INPUTS, limits(known), SHAPES, SEEDS)
    ]
    own = dict(shape=shape, beside=beside, repeats=REPEATS, warmup=WARMUP)
    own |= dict(n_calibration=N_CALIBRATION, n_tokens=N_TOKENS)
    options = dict(rules=rules_for(NAME), versions_of=("openvino", "nncf"), fresh=fresh)
    return run_cases(NAME, each, run_one, settings=own, **options)


# --- What it comes to ------------------------------------------------------------------------


def runs_by_cpu(blocks: Iterable[Mapping]) -> dict[str, list[Mapping]]:
    """{"": runs of the first complete machine with VNNI, "-older": of the first one without}.

    The first, so that no second try replaces it. Where no machine lacks VNNI, the one that has it,
    limited to an older one's instructions.
    """
    first: dict[bool, list[Mapping]] = {}
    for block in blocks:
        if block["complete"]:
            first.setdefault(has_vnni(block), block["runs"])
    newer = first.get(True, [])
    limited = [run for run in newer if run["isa"]]
    return {"": [run for run in newer if not run["isa"]], "-older": first.get(False, limited)}


def cases(blocks: Iterable[Mapping], value: str = "ratio") -> dict[str, Estimate]:
    """{"bert-1x16": INT8's time over fp32's, "bert-1x16-older": without VNNI, "minilm-1x16": ...}

    Mean and interval over seeds, each a process, widened by the A/A noise over the same seeds.
    Machines that the record lacks have no cases. `value`: "ratio" is to OpenVINO's fp32,
    "over_torch" to torch's.
    """
    require_one_of("value", value, ("ratio", "over_torch"))
    groups: dict[str, list[Mapping]] = {}
    for cpu, runs in runs_by_cpu(blocks).items():
        for run in runs:
            key = f"{SHAPES[run['shape']]}-{run['n']}x{run['length']}{cpu}"
            groups.setdefault(key, []).append(run)
    return {key: over_seeds(runs, value) for key, runs in groups.items()}


def over_seeds(runs: list[Mapping], value: str) -> Estimate:
    """Mean of that ratio over runs, its interval widened by that of the baseline's second run."""
    ratio, again = (of_mean([run[key] for run in runs]) for key in (value, "again"))
    return ratio.with_noise(again.band)
