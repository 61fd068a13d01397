"""Notebook 08's int8 unit on an FPGA: bit for bit on real weights, in clocks, and on which chip."""

import re
from functools import lru_cache
from statistics import median

import numpy as np

from efflab import points
from efflab.acceleration import fpga, systolic
from efflab.compression import affine, int8
from efflab.config import PRESETS
from efflab.data import published
from efflab.errors import require, require_int
from efflab.experiments import fpga_synthesis as experiment
from efflab.experiments.record import recorded
from efflab.lab import Choice, Evidence, Slider, colours, explorer, figures, number, tr

TEXT = "Return a shallow copy of the list, sorted in ascending order."
MODEL, TARGET_MS, TOKENS = "minilm-l6", 100.0, 128
N_TOKENS, N_CHANNELS = 8, 8  # of the product that is simulated: its k is MiniLM's width, 384

# --- Bit for bit ---------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def attention_codes() -> tuple[np.ndarray, np.ndarray]:
    """int8 codes of what MiniLM's first attention is given (8,384), and of its queries' weights.

    One scale for the input, one an output channel for the weights (384,8); symmetric both.
    """
    model, tokenizer = points.encoder()
    batch = tokenizer([TEXT], return_tensors="pt")
    seen = {}
    with int8.watching(model, lambda name, x: seen.setdefault(name, x.detach())):
        model.encode(batch["input_ids"], batch["attention_mask"])
    (name,) = [n for n in seen if re.fullmatch(r"layers\.0\..*qkv", n)]
    weight = model.get_submodule(name).weight.detach()[:N_CHANNELS]
    a = affine.quantize(seen[name].reshape(-1, weight.shape[1])[:N_TOKENS], 8).codes()
    return a.numpy(), affine.quantize(weight, 8, axis=0).codes().numpy().T


@lru_cache(maxsize=8)
def simulated(side: int) -> tuple[int, int]:
    """(wrong values, clocks) of that product on a simulated unit of side x side cells."""
    require_int("side", side)
    a, b = attention_codes()
    product, clocks = fpga.simulate(a, b, side, side)
    return int((product != a.astype(int) @ b.astype(int)).sum()), clocks


def simulated_rows(side: int) -> list[dict]:
    """The real product on units of three sizes: wrong values, and clocks beside the formula."""
    (m, k), n = attention_codes()[0].shape, attention_codes()[1].shape[1]
    found = []
    for s in sorted({2, 4, side}):
        wrong, clocks = simulated(s)
        formula = fpga.cycles(m, n, k, s, s)
        found.append({
            "unit": f"{s} x {s}", "wrong values": wrong, "clocks, simulated": clocks,
            "clocks, formula": formula, "ratio": clocks / formula,
            "SCALE-Sim's model": systolic.gemm_cycles(m, n, k, s, s), "kind": "simulated",
        })  # fmt: skip
    return found


def first_values() -> list[dict]:
    """The first token's sums in the simulated hardware, numpy's, and their difference."""
    a, b = attention_codes()
    product, _ = fpga.simulate(a[:1], b[:, :4], 1, 4)
    exact = (a[:1].astype(int) @ b[:, :4].astype(int))[0]
    return [{"channel": i, "hardware": int(h), "numpy": int(e), "kind": "simulated"}
            for i, (h, e) in enumerate(zip(product[0], exact, strict=True))]  # fmt: skip


# --- Verilog and resources -----------------------------------------------------------------------


def cell_verilog() -> str:
    """One inner cell of the grid as Yosys writes it, each port declared once."""
    text = fpga.verilog(3, 3)
    (cell,) = re.findall(r"module \\array\.cell_1_1 .*?endmodule", text, re.DOTALL)
    ports = set(re.findall(r"(?:input|output) (?:signed )?(?:\[.*?\] )?(\w+);", cell))
    kept = [
        line
        for line in cell.splitlines()
        if not (line.strip().startswith("wire") and line.strip(" ;").split()[-1] in ports)
    ]
    return "\n".join(kept)  # fmt: skip


@lru_cache(maxsize=1)
def record() -> dict:
    """The recorded mapping and routing."""
    return recorded(experiment.NAME)


def mapped(family: str, side: int) -> fpga.Resources:
    """Recorded resources of a unit."""
    (run,) = [r for r in record()["runs"]
              if (r["part"], r["family"], r["side"]) == ("mapped", family, side)]  # fmt: skip
    return fpga.Resources(run["dsp"], run["lut"], run["ff"])


def clock_mhz(side: int) -> float | None:
    """Recorded clock of the routed unit, the median of its placements; None if not routed."""
    runs = [r for r in record()["runs"] if (r["part"], r["side"]) == ("routed", side)]
    found = [r["mhz"] for r in runs if r["mhz"] is not None]
    return median(found) if found else None


def resource_rows() -> list[dict]:
    """Recorded resources by family and side, and the clock where it was routed."""
    found = []
    for family, side in [(f, s) for f in fpga.FAMILIES for s in experiment.SIDES]:
        took, mhz = mapped(family, side), clock_mhz(side) if family == "ecp5" else None
        found.append({
            "family": family, "unit": f"{side} x {side}", "multipliers (DSP)": took.dsp,
            "tables (LUT)": took.lut, "flip-flops": took.ff,
            "tables a cell": took.lut / side**2, "clock (MHz)": mhz,
            "kind": "recorded",
        })  # fmt: skip
    return found


def live_row(family: str = "ecp5") -> dict:
    """2 x 2 mapped now, beside its record."""
    now, old = fpga.synthesize(2, 2, family), mapped(family, 2)
    same = now == old
    return {"family": family, "unit": "2 x 2", "multipliers (DSP)": now.dsp,
            "tables (LUT)": now.lut, "flip-flops": now.ff, "as recorded": same,
            "kind": "measured"}  # fmt: skip


@lru_cache(maxsize=1)
def chips() -> list[dict]:
    """Vendors' product tables: family, device, dsp, lut, ff."""
    return published("fpga")


def family_of(chip: dict) -> str:
    """The family that a chip was mapped for; UltraScale+ is counted with the 7 series' figures."""
    return "ecp5" if chip["family"] == "ECP5" else "xilinx"


def fits(chip: dict, side: int) -> bool:
    """Whether a chip holds the recorded unit."""
    return mapped(family_of(chip), side).fits(chip["dsp"], chip["lut"], chip["ff"])


def chip_rows() -> list[dict]:
    """What fits on which chip, and how much of it the 8 x 8 unit takes."""
    found = []
    for chip in chips():
        took = mapped(family_of(chip), 8)
        found.append({
            "chip": chip["device"], "DSP": chip["dsp"], "LUT": chip["lut"],
            "8 x 8 fits": fits(chip, 8), "16 x 16 fits": fits(chip, 16),
            "8 x 8: share of DSP (%)": 100 * took.dsp / chip["dsp"],
            "share of LUT (%)": 100 * took.lut / chip["lut"], "kind": "computed",
        })  # fmt: skip
    return found


# --- How long a model takes ----------------------------------------------------------------------


def model_clocks(seq_len: int, side: int, model: str = MODEL) -> int:
    """Clocks of a whole model's matrix products for one text on one unit."""
    config = PRESETS[model]
    return config.n_layer * sum(p.count * fpga.cycles(p.m, p.n, p.k, side, side)
                                for p in systolic.block_products(config, seq_len))  # fmt: skip


def model_ms(seq_len: int, side: int, mhz: float) -> float:
    """Milliseconds of them at that clock."""
    return model_clocks(seq_len, side) / (1e3 * mhz)


def longest_text(side: int, mhz: float, limit_ms: float = TARGET_MS) -> int:
    """The most tokens whose matrix products are done within the limit, up to 512; 0: not even one.

    Clocks rise with every tile begun, never fall.
    """
    fitting = [t for t in range(1, 513) if model_ms(t, side, mhz) <= limit_ms]
    return fitting[-1] if fitting else 0


def fpga_evidence(side: int) -> list[Evidence]:
    """What the verdict rests on: the 8 x 8 unit at its routed clock; `side` was simulated here."""
    holding = sum(fits(chip, 8) for chip in chips())
    common = [
        Evidence("wrong", "wrong values", simulated(side)[0], "", "simulated"),
        Evidence("chips", "chips of the table that hold it", holding, "", "computed"),
    ]
    mhz = clock_mhz(8)
    if mhz is None:
        return common
    longest, resources = longest_text(8, mhz), mapped("ecp5", 8)
    return [
        Evidence("time", "time for 128 tokens", model_ms(TOKENS, 8, mhz), "ms", "computed"),
        Evidence("longest-text", "longest text within 100 ms", longest, "tokens", "computed"),
        *common,
        Evidence("clock", "clock of the 8 x 8 unit on an LFE5U-85F", mhz, "MHz", "recorded"),
        Evidence("dsp", "multipliers (DSP)", resources.dsp, "", "recorded"),
        Evidence("lut", "tables (LUT)", resources.lut, "", "recorded"),
    ]


@explorer(
    mhz=Slider(50, 400, 100, step=50, unit="MHz", label="clock"),
    side=Choice([2, 4, 8, 16], 8, label="side of the unit"),
    n_units=Slider(1, 64, 1, scale="log2", label="units side by side"),
)
def serving(mhz=100, side=8, n_units=1):
    """MiniLM's matrix products over the text's length, and the chips that hold so many units."""
    require(0 < mhz <= 1000, "mhz", mhz, "above {low}, at most {high}", low=0, high=1000)
    require_int("n_units", n_units)
    require(side in experiment.SIDES, "side", side, "one of {options}", options=experiment.SIDES)
    lengths = [16, 32, 64, 128, 256, 512]
    times = [model_ms(t, side, mhz) / n_units for t in lengths]
    holding = [c["device"] for c in chips() if _holds(c, side, n_units)]
    shown = dict(n=n_units, side=side, mhz=number(mhz), ms=number(times[3]))
    shown |= dict(k=len(holding), all=len(chips()))
    title = tr("{n} x ({side} x {side}), {mhz} MHz: {ms} ms for 128 tokens; {k} of {all} chips",
               **shown)  # fmt: skip
    labels = tr("sequence length (tokens)"), tr("MiniLM's matrix products (ms)")
    meta = {tr("ms for 128 tokens"): times[3], tr("chips that hold it"): len(holding),
            tr("bytes a clock"): n_units * 2 * side}  # fmt: skip
    fig = figures.line(lengths, {"": times}, title, *labels, log_x=True, log_y=True, meta=meta)
    fig.add_hline(y=TARGET_MS, line=dict(color=colours.DARK, dash="dash", width=1.5))
    fig.add_annotation(text=tr("100 ms"), x=1, xref="paper", xanchor="right", y=np.log10(TARGET_MS),
                       yanchor="top", showarrow=False)  # fmt: skip
    names = ", ".join(holding) or tr("none of the table")
    fig.add_annotation(text=tr("holds it: {names}", names=names), x=0.01, y=1.0, xref="paper",
                       yref="paper", xanchor="left", yanchor="top", showarrow=False)  # fmt: skip
    return fig.update_yaxes(range=[-1, 4.5], dtick=1)


def _holds(chip: dict, side: int, n_units: int) -> bool:
    took = mapped(family_of(chip), side)
    many = fpga.Resources(*(n_units * v for v in (took.dsp, took.lut, took.ff)))
    return many.fits(chip["dsp"], chip["lut"], chip["ff"])
