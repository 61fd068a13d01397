"""What the claims of notebook 08 rest on, and what they come to: pure functions of the evidence."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from statistics import median

from efflab.lab import Evidence, Outcome, by_id, judge
from efflab_rooms.accelerators import measure

# --- An NPU against a GPU ------------------------------------------------------------------------

BATCHES = (1, 8, 64)
MATRIX_UNITS = [(gpu, t) for gpu, types in measure.PRECISIONS.items() for t in types if t != "fp32"]
"""GPUs and the precisions of their matrix units: the cases."""
BEST = [(gpu, types[-1]) for gpu, types in measure.PRECISIONS.items()]
"""Each GPU in its fastest precision."""
NAMES = {
    "tpu": "first TPU time / {gpu} ({dtype}), batch {batch}",
    "equal": "equal array time / {gpu} ({dtype}), batch {batch}",
    "gpu-starts": "first TPU time / {gpu} ({dtype}), batch {batch}, launches on the GPU only",
    "equal-gpu-starts": "equal array time / {gpu} ({dtype}), batch {batch}, launches on the GPU "
    "only",
}
CHECKS = "model-small", "model-large"


def npu_evidence(
    seq_len: int,
    launch: float,
    published: Iterable[Mapping],
    checks: Sequence[Mapping],
    rival: Callable = measure.rival,
) -> list[Evidence]:
    """Times of a whole block on an NPU over a GPU's, and published ones.

    `launch`: seconds to start a product; `published`: rows of tpu_v4.csv; `checks`: rows of
    `measure.model_check_rows`, smallest first; `rival`: (one of `measure.NPUS`, GPU, precision) ->
    the NPU.
    """

    def ratios(against: str, gpu: str, dtype: str, npu_launch: float | None = None):
        array = rival(against, gpu, dtype)
        return measure.ratios(array, gpu, dtype, seq_len, launch, npu_launch)[-1]

    tpu, equal = partial(ratios, measure.TPU), partial(ratios, measure.TWIN)
    floats = [(gpu, "fp32") for gpu in measure.PRECISIONS]
    return [
        *_block_evidence("tpu", tpu, MATRIX_UNITS, BATCHES),
        *_block_evidence("tpu", tpu, floats, [8]),
        *_block_evidence("gpu-starts", partial(tpu, npu_launch=0.0), BEST, [1]),
        *_block_evidence("equal", equal, BEST, BATCHES),
        *_block_evidence("equal-gpu-starts", partial(equal, npu_launch=0.0), BEST, [1]),
        *(_published_time(row) for row in published),
        *(_check(id, row) for id, row in zip(CHECKS, (checks[0], checks[-1]), strict=True)),
    ]


def _block_evidence(kind: str, ratios: Callable, pairs, batches) -> Iterator[Evidence]:
    """A block's time on an NPU over a GPU's, for each GPU and precision and each batch."""
    for (gpu, dtype), batch in product(pairs, batches):
        value = float(ratios(gpu, dtype)[measure.BATCHES.index(batch)])
        id = f"{kind}-{gpu.split()[0].lower()}-{dtype}-{batch}"
        values = dict(gpu=gpu, dtype=dtype, batch=batch)
        yield Evidence(id, NAMES[kind], value, "", "simulated", values=values)


def _published_time(row: Mapping) -> Evidence:
    """A published speed of TPU v4 over an A100, as a time."""
    name, id = "TPU v4 time / A100, training {model}", f"tpu-v4-{row['model'].lower()}"
    values = dict(model=row["model"])
    return Evidence(id, name, 1 / row["speed_over_a100"], "", "published", values=values)


def _check(id: str, row: Mapping) -> Evidence:
    """How long a square product takes the model's GPU, over the recorded one."""
    name = "modelled GPU time / recorded H100, {dtype}, {n} x {n}"
    values = dict(dtype=row["dtype"], n=row["n"])
    return Evidence(id, name, row["ratio"], "", "computed", values=values)


def npu_latency(evidence) -> Outcome:
    """40 % less time than a GPU for a block's matrix products?"""
    items = by_id(evidence)
    floats = [item.value for id, item in items.items() if "fp32" in id]
    starts = [item.value for id, item in items.items() if id.startswith("equal-gpu-starts")]
    remarks = {
        "first-tpu": "it takes {low} to {high} of an fp32 GPU's time at batch 8: "
        "where it gains, it gains by its lower precision",
        "equal-strength": "if only the GPU pays for launches, the array takes {least} to {most} of "
        "the GPU's time at batch 1: on the faster GPUs a small batch waits for launches, not for "
        "the matrix units",
        "published": "training, by the TPU's makers; ResNet is not a Transformer",
    }
    values = dict(low=min(floats), high=max(floats), least=min(starts), most=max(starts))
    values = {key: f"{value:.2f}" for key, value in values.items()}
    return judge("npu-latency", items.values(), remarks=remarks, values=values)


# --- An FPGA -------------------------------------------------------------------------------------

NEVER_MS = 1e9
"""A chip that holds no unit serves nothing: a time beyond any bar."""


def fpga_evidence(
    wrong: Mapping[str, tuple[int, int]], chips: Iterable[Mapping], clocks: Sequence[float]
) -> list[Evidence]:
    """What a unit computes, and what each chip full of `measure.SIDE`'s units does.

    `wrong`: {id: (side of a simulated unit, its wrong values)}; `chips`: rows of fpga.csv;
    `clocks`: MHz of a full chip, by placement.
    """
    name, evidence = "wrong values, {side} x {side} unit", []
    for id, (side, n_wrong) in wrong.items():
        evidence.append(Evidence.exact(id, name, n_wrong, kind="simulated", side=side))
    for chip in chips:
        evidence += _chip_evidence(chip, clocks)
    return evidence


def _chip_evidence(chip: Mapping, clocks: Sequence[float]) -> list[Evidence]:
    units, id = measure.n_units(chip, measure.SIDE), chip["device"].lower()
    values = dict(chip=chip["device"])
    ends = [_ms(units, mhz) for mhz in (median(clocks), max(clocks), min(clocks))]
    held = "units that fit on {chip}"
    time = "128 tokens on {chip}, median (and range) of {n} placements"
    more = values | dict(n=len(clocks))
    return [
        Evidence.exact(f"units-{id}", held, units, kind="computed", **values),
        Evidence(f"ms-{id}", time, ends[0], "ms", "computed", *ends[1:], more),
    ]


def _ms(units: int, mhz: float) -> float:
    return measure.model_ms(measure.TOKENS, measure.SIDE, mhz, units) if units else NEVER_MS


def fpga_inference(evidence) -> Outcome:
    """An FPGA serves inference: exact, small enough, fast enough?"""
    serves = (
        "one chip was routed, with almost all its multipliers in one unit of {side} x {side}, and "
        "the others are computed at its clock; the range of {n} placements covers the true median "
        "with {sure}% probability; softmax, LayerNorm, GELU and reading the weights come on top"
    )
    n = by_id(evidence)["ms-lfe5u-85f"].values["n"]
    values = dict(side=measure.FULL_SIDE, n=n, sure=round(100 - 200 * 0.5**n))
    return judge("fpga-inference", evidence, remarks={"serves": serves}, values=values)
