"""Notebook 09's engines: the recorded comparison, three of its rows again, board and verdicts."""

import tempfile
from functools import cache, lru_cache
from pathlib import Path

import torch

from efflab import bench, evaluate
from efflab.bench import cpu_features
from efflab.compression import engines
from efflab.compression.engines import Engine
from efflab.errors import require, require_int
from efflab.estimate import Estimate, bootstrap
from efflab.experiments import int8_engines as experiment
from efflab.experiments.record import DECIMAL, recorded
from efflab.experiments.record import agrees as within
from efflab.experiments.record import machines as recorded_machines
from efflab.lab import colours, figures, tr
from efflab.points import encoder as minilm
from efflab_rooms.quantization import operators
from efflab_rooms.quantization.verdicts import SHARE

LATENCY, HERE = "16x128", "4x64"  # texts x tokens, as recorded and as repeated here
RIGHT = 0.9  # a cosine below which an engine computes something else
ARTICLE = 0.4  # of the time: 60 % less latency, as the article's section 5 reports of ERNIE
AGAIN = ("fp32 eager", "torch dynamic INT8", "OpenVINO INT8")


@cache
def kept(machine: str | None = None) -> dict:
    """The comparison recorded on one of `machines()`; by default on the newest."""
    return recorded(experiment.NAME, machine)


def machines() -> list[str]:
    """The machines on which the comparison was recorded."""
    return recorded_machines(experiment.NAME)


def with_vnni(has: bool) -> str | None:
    """The newest recorded machine whose CPU has VNNI, or has none; None where there is no such."""
    alike = [m for m in machines() if (kept(m)["features"] or {}).get("vnni") is has]
    return alike[-1] if alike else None


def like_here() -> str | None:
    """The newest recorded machine whose CPU has VNNI where this one has it; None if none has."""
    return with_vnni(cpu_features()["vnni"])


def row_of(name: str, machine: str | None = None) -> dict:
    """One engine's recorded row; an unknown name is a `ValueError`."""
    rows = {row["engine"]: row for row in experiment.rows_of(kept(machine))}
    require(name in rows, "engine", name, "one of " + ", ".join(rows))
    return rows[name]


def with_ends(row: dict, key: str) -> str:
    """ "0.33 (0.31 to 0.35)"; an old record keeps the median alone."""
    value = f"{row[key]:.2f}"
    if f"{key} low" not in row:
        return value
    ends = {end: f"{row[f'{key} {end}']:.2f}" for end in ("low", "high")}
    return tr("{value} ({low} to {high})", value=value, **ends)


CPUS = {False: "CPU without VNNI (recorded)", True: "CPU with VNNI (recorded)"}


def recorded_rows(shape: str = LATENCY) -> list[dict]:
    """Every engine: size, quality, and its time over fp32's on both kinds of CPU."""
    rows = []
    for name in experiment.ENGINES:
        row = row_of(name)
        on = {label: with_ends(row_of(name, with_vnni(has)), shape) for has, label in CPUS.items()}
        rows.append({"engine": name, "size over fp32": round(row["size"], 3), **on,
                     "cosine, p5": row["cosine p5"], "cosine, min": row["cosine min"],
                     "MRR": row["mrr"], "kind": "recorded"})  # fmt: skip
    return rows


def keeps(row: dict) -> bool:
    """Whether an engine's MRR is at least 99 % of fp32's, the bar of the verdict."""
    return row["mrr"] >= (1 - SHARE) * row["mrr fp32"]


def fastest_rows(shape: str = LATENCY) -> list[dict]:
    """On both kinds of CPU the fastest engine, and the fastest of those that keep the quality."""
    rows = []
    for has, label in CPUS.items():
        found = experiment.rows_of(kept(with_vnni(has)))
        for what, allowed in (("of all", found), ("of those at 99% of fp32's MRR",
                                                  [r for r in found if keeps(r)])):  # fmt: skip
            best = min(allowed, key=lambda row: row[shape])
            rows.append({"CPU": label, "fastest": what, "engine": best["engine"],
                         "time over fp32": with_ends(best, shape), "MRR": best["mrr"],
                         "60% less": best[shape] <= ARTICLE, "kind": "recorded"})  # fmt: skip
    return rows


LEFT_OUT = {
    None: "none, as it runs",
    experiment.ALL: "none, weights in 7 bits",
    experiment.WITHOUT_VNNI: "VNNI and what is newer",
    experiment.WITHOUT_AVX512: "AVX-512 and what is newer",
}


def ablation_rows(shape: str = LATENCY) -> list[dict]:
    """On the CPU with VNNI: engines as they run, and with instructions left out if so recorded.

    A time counts only where the results beside it are right.
    """
    found = kept(with_vnni(True))
    runs = experiment.rows_of(found) + experiment.rows_of(found, capped=True)
    return [
        {
            "engine": row["engine"],
            "instructions left out": LEFT_OUT[row["isa"]],
            "time over fp32": with_ends(row, shape),
            "cosine, p5": row["cosine p5"],
            "results right": row["cosine p5"] >= RIGHT,
            "kind": "recorded",
        }
        for name in experiment.CAPPED
        for row in runs
        if row["engine"] == name
    ]


def figure(shape: str = LATENCY):
    """Size, time on both kinds of CPU, and 1 - least cosine, by engine."""
    names = [tr(name).replace("，", "，<br>").replace(", ", ",<br>") for name in experiment.ENGINES]
    titles = [tr("size over fp32"), tr("time over fp32"),
              tr("1 - cosine, worst of {n}", n=kept()["settings"]["n_test"])]  # fmt: skip
    title = tr("Nine engines (recorded): 16 texts of 128 tokens, threads: {n} (dashed: 60% less)",
               n=kept()["threads"])  # fmt: skip
    fig = figures.panels(titles, title, shared_yaxes=True, horizontal_spacing=0.04)
    sizes = [row_of(name)["size"] for name in experiment.ENGINES]
    fig.add_bar(x=sizes, y=names, orientation="h", texttemplate="%{x:.2f}", row=1, col=1,
                textposition="inside", insidetextanchor="start", showlegend=False,
                marker_color=figures.colour(5))  # fmt: skip
    meta = {}
    for i, (has, label) in enumerate(CPUS.items()):
        rows = [row_of(name, with_vnni(has)) for name in experiment.ENGINES]
        marker = dict(color=figures.colour(i), symbol=figures.MARKERS[i], size=11)
        times = [row[shape] for row in rows]
        above = [row.get(f"{shape} high", row[shape]) - row[shape] for row in rows]
        below = [row[shape] - row.get(f"{shape} low", row[shape]) for row in rows]
        lost = [max(1 - row["cosine min"], 5e-5) for row in rows]  # four decimals are kept
        look = dict(mode="markers", name=tr(label), legendgroup=label, marker=marker, y=names)
        fig.add_scatter(x=times, error_x=dict(array=above, arrayminus=below), row=1, col=2, **look)
        fig.add_scatter(x=lost, row=1, col=3, showlegend=False, **look)
        meta[tr("OpenVINO INT8 over fp32, {cpu}", cpu=tr(label))] = rows[-1][shape]
    fig.update_yaxes(autorange="reversed")
    fig.update_xaxes(range=[0, 1.05], col=1)
    fig.update_xaxes(type="log", tickvals=[0.25, 0.5, 1, 2, 4, 8], range=[-0.8, 1], col=2)
    fig.update_xaxes(type="log", dtick=2, exponentformat="power", col=3)
    fig.add_vline(x=ARTICLE, line=dict(color=colours.DARK, dash="dash", width=1.5), row=1, col=2)
    below = dict(orientation="h", y=-0.08)
    return fig.update_layout(meta=meta, height=520, legend=below, margin_l=160)


# --- Three of them again, here -------------------------------------------------------------------


@lru_cache(maxsize=2)
def built(n_calibration: int) -> tuple[dict[str, Engine], operators.Profiler]:
    """fp32, torch dynamic INT8 and OpenVINO INT8, built now, and the profiler of the last."""
    require_int("n_calibration", n_calibration)
    most = experiment.N_CALIBRATION
    require(n_calibration <= most, "n_calibration", n_calibration, "at most {high}", high=most)
    model, tokenizer = minilm()
    with tempfile.TemporaryDirectory() as folder:  # an engine reads its files when it is made
        texts = experiment.calibration(tokenizer, n_calibration)
        made = (engines.fp32(model), engines.torch_dynamic(model),
                engines.openvino_int8(model, Path(folder), texts))  # fmt: skip
        profiler = operators.openvino(Path(folder) / "int8.xml")
    return {engine.name: engine for engine in made}, profiler


def made(n_calibration: int) -> dict[str, Engine]:
    """The engines of `built`."""
    return built(n_calibration)[0]


@lru_cache(maxsize=2)
def timed(n_calibration: int, repeats: int = 9) -> bench.Comparison:
    """The INT8 engines beside fp32, and fp32 beside itself, on 4 texts of 64 tokens."""
    here, batch = made(n_calibration), experiment.full_batch(4, 64)
    calls = {name: lambda name=name: here[name].embed(*batch) for name in AGAIN}
    base = calls.pop(AGAIN[0])
    return bench.compared(base, calls, warmup=1, repeats=repeats)


def time_rows(n_calibration: int, repeats: int = 9) -> list[dict]:
    """The three engines' times over fp32's: both recorded kinds of CPU, and this one."""
    found = timed(n_calibration, repeats)
    rows = []
    for name in AGAIN:
        here = found.again if name == AGAIN[0] else found.ratios[name]
        row = {"engine": name if name != AGAIN[0] else "fp32 eager, again (A/A)"}
        for has, label in CPUS.items():
            row[label] = with_ends(row_of(name, with_vnni(has)), HERE)
        ends = {"x": here.mean, "x low": here.low, "x high": here.high}
        rows.append(row | {"this CPU (measured)": with_ends(ends, "x")})
    return rows


def quality_rows(n_docstrings: int, n_calibration: int) -> list[dict]:
    """The three engines' sizes and quality measured now, each under its recorded row."""
    require_int("n_docstrings", n_docstrings)
    here = made(n_calibration)
    tokenizer, size = minilm()[1], here[AGAIN[0]].nbytes
    rows = []
    for name in AGAIN:
        old = row_of(name, like_here())
        found = experiment.quality(here[name], tokenizer, n_docstrings)
        found |= {"size": here[name].nbytes / size}
        for kind, values in (("recorded", old), ("measured", found)):
            rows.append({
                "engine": name, "size over fp32": round(values["size"], 4),
                "cosine, mean": round(values["cosine mean"], 4),
                "cosine, p5": round(values["cosine p5"], 4),
                "cosine, min": round(values["cosine min"], 4), "MRR": round(values["mrr"], 3),
                "MRR, fp32": round(values["mrr fp32"], 3), "kind": kind,
            })  # fmt: skip
    return rows


def agrees(rows: list[dict]) -> bool:
    """Whether sizes here are the recorded ones, and mean cosines as near as texts are alike.

    A size is kept with four decimals. A mean over other texts, with other calibration, may be off
    by one standard deviation over the recorded texts.
    """
    return all(
        within(new["size over fp32"], old["size over fp32"], DECIMAL)
        and within(new["cosine, mean"], old["cosine, mean"], texts_deviation(old["engine"]))
        for old, new in zip(rows[::2], rows[1::2], strict=True)
    )


def texts_deviation(name: str) -> float:
    """Standard deviation of an engine's recorded cosine over the texts.

    Where a record keeps mean and 5th percentile alone, a normal distribution's: 1.645 of them lie
    between the two.
    """
    row = row_of(name, like_here())
    deviation = row.get("cosine sd", (row["cosine mean"] - row["cosine p5"]) / 1.645)
    return max(DECIMAL, deviation)


def ranks(n_docstrings: int, n_calibration: int) -> dict[str, Estimate]:
    """What torch's dynamic INT8 changes, text by text: the cosine, and which code comes first."""
    tokenizer, here = minilm()[1], made(n_calibration)
    chosen = experiment.functions()[1][:n_docstrings]
    exact = experiment.exact(n_docstrings)
    texts = [f.query for f in chosen], [f.code for f in chosen]
    other = [experiment.embeddings(here[AGAIN[1]], tokenizer, t) for t in texts]
    firsts = [(q @ c.T).argmax(1) for q, c in (exact, other)]
    theirs, ours = (evaluate.reciprocal_ranks(*pair) for pair in (exact, other))
    cosine = torch.nn.functional.cosine_similarity(exact[0], other[0], dim=-1)
    return {
        "cosine to fp32, p5": experiment.percentile(cosine.numpy()),
        "same code found first (%)": bootstrap(100.0 * (firsts[0] == firsts[1]).numpy()),
        "MRR, fp32": bootstrap(theirs),
        "MRR, INT8": bootstrap(ours),
        "MRR, INT8 less fp32, text by text": bootstrap(ours - theirs),
    }


def rank_rows(n_docstrings: int, n_calibration: int) -> list[dict]:
    """`ranks` as a table."""
    return [{"figure": k, "torch dynamic INT8": v.mean, "interval, low": v.low,
             "interval, high": v.high, "kind": "measured"}
            for k, v in ranks(n_docstrings, n_calibration).items()]  # fmt: skip


def operator_rows(n_calibration: int) -> list[dict]:
    """Where OpenVINO INT8's time goes on this CPU, 4 texts of 64 tokens."""
    ids, mask = experiment.full_batch(4, 64)
    return operators.rows(built(n_calibration)[1](ids.numpy(), mask.numpy()))
