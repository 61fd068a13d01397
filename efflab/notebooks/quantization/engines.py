"""Notebook 09's engines: the recorded comparison, three of its rows again, board and verdicts."""

import tempfile
from functools import cache, lru_cache
from pathlib import Path

from efflab import evaluate
from efflab.bench import cpu_features
from efflab.compression import engines
from efflab.compression.engines import Engine
from efflab.errors import require, require_int
from efflab.experiments import int8_engines as experiment
from efflab.experiments.record import DECIMAL, recorded
from efflab.experiments.record import agrees as within
from efflab.experiments.record import machines as recorded_machines
from efflab.lab import figures, tr
from efflab.points import encoder as minilm

LATENCY = "16x128"  # texts x tokens, the shape that the target names
AGAIN = ("fp32 eager", "torch dynamic INT8", "OpenVINO INT8")


@cache
def kept(machine: str | None = None) -> dict:
    """The comparison recorded on one of `machines()`; by default on the newest."""
    return recorded(experiment.NAME, machine)


def machines() -> list[str]:
    """The machines on which the comparison was recorded."""
    return recorded_machines(experiment.NAME)


def like_here() -> str | None:
    """The newest recorded machine whose CPU has VNNI where this one has it; None if none has."""
    vnni = cpu_features()["vnni"]
    alike = [m for m in machines() if (kept(m)["features"] or {}).get("vnni") == vnni]
    return alike[-1] if alike else None


def row_of(name: str, machine: str | None = None) -> dict:
    """One engine's recorded row; an unknown name is a `ValueError`."""
    rows = {row["engine"]: row for row in experiment.rows_of(kept(machine))}
    require(name in rows, "engine", name, "one of " + ", ".join(rows))
    return rows[name]


def recorded_rows(machine: str | None = None) -> list[dict]:
    """Every engine on one machine: size, time at three shapes over fp32's, cosine, MRR."""
    times = {f"{b}x{t}": tr("time, {b} x {t} tokens", b=b, t=t) for b, t in experiment.SHAPES}
    return [
        {
            "engine": row["engine"],
            "size over fp32": row["size"],
            **{label: row[key] for key, label in times.items()},
            "cosine, p5": row["cosine p5"],
            "cosine, min": row["cosine min"],
            "MRR": row["mrr"],
            "kind": "recorded",
        }
        for row in experiment.rows_of(kept(machine))
    ]


def machine_rows(shape: str = LATENCY) -> list[dict]:
    """Every engine's time over fp32's at one shape, a column for each recorded machine."""
    return [
        {"engine": name}
        | {machine: row_of(name, machine)[shape] for machine in machines()}
        | {"kind": "recorded"}
        for name in experiment.ENGINES
    ]


def figure():
    """Size, least cosine, and time on every recorded machine, by engine."""
    rows = list(reversed(experiment.rows_of(kept())))
    names = [tr(row["engine"]).replace(", ", ",<br>") for row in rows]
    titles = [tr("size over fp32"), tr("time (dashed: 0.35)"),
              tr("cosine, least of {n}", n=kept()["settings"]["n_test"])]  # fmt: skip
    title = tr("Nine engines (recorded): 16 texts of 128 tokens, threads: {n}",
               n=kept()["threads"])  # fmt: skip
    fig = figures.panels(titles, title, shared_yaxes=True, horizontal_spacing=0.04)
    style = dict(orientation="h", texttemplate="%{x:.2f}", textposition="inside",
                 insidetextanchor="start", y=names)  # fmt: skip
    for column, key in ((1, "size"), (3, "cosine min")):
        fig.add_bar(x=[row[key] for row in rows], showlegend=False, row=1, col=column,
                    marker_color=figures.COLOURS[0], **style)  # fmt: skip
    meta = {}
    for i, machine in enumerate(machines(), start=1):
        times = [row_of(row["engine"], machine)[LATENCY] for row in rows]
        fig.add_bar(x=times, name=machine, marker_color=figures.COLOURS[i], row=1, col=2, **style)
        fastest = rows[times.index(min(times))]
        meta[tr("least time over fp32, {machine}", machine=machine)] = min(times)
        meta[tr("its least cosine, {machine}", machine=machine)] = fastest["cosine min"]
    fig.update_xaxes(range=[0, 2], col=2)  # bf16 runs off the scale where it is emulated
    fig.add_vline(x=0.35, line=dict(color="#444", dash="dash", width=1.5), row=1, col=2)
    return fig.update_layout(meta=meta, height=560, legend=dict(orientation="h", y=-0.1))


# --- Three of them again, here -------------------------------------------------------------------


@lru_cache(maxsize=2)
def made(n_calibration: int) -> dict[str, Engine]:
    """fp32, torch dynamic INT8 and OpenVINO INT8, built now on this machine."""
    require_int("n_calibration", n_calibration)
    most = experiment.N_CALIBRATION
    require(n_calibration <= most, "n_calibration", n_calibration, f"at most {most}")
    model, tokenizer = minilm()
    with tempfile.TemporaryDirectory() as folder:  # an engine reads its files when it is made
        texts = experiment.calibration(tokenizer, n_calibration)
        built = (engines.fp32(model), engines.torch_dynamic(model),
                 engines.openvino_int8(model, Path(folder), texts))  # fmt: skip
    return {engine.name: engine for engine in built}


def live_rows(n_docstrings: int, n_calibration: int, repeats: int = 9) -> list[dict]:
    """The three engines measured now, each under its row from a machine with the same kind of CPU.

    With no such record, under the newest machine's.
    """
    require_int("n_docstrings", n_docstrings)
    here = made(n_calibration)
    ratios = experiment.latency(list(here.values()), (4, 64), repeats)
    tokenizer, size = minilm()[1], here[AGAIN[0]].nbytes
    rows = []
    for name in AGAIN:
        old = row_of(name, like_here())
        found = experiment.quality(here[name], tokenizer, n_docstrings)
        found |= {"size": here[name].nbytes / size, "4x64": ratios[name]}
        for kind, values in (("recorded", old), ("measured", found)):
            rows.append({
                "engine": name, "size over fp32": round(values["size"], 4),
                "time over fp32": round(values["4x64"], 2),
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


def ranks(n_docstrings: int, n_calibration: int) -> dict[str, float]:
    """What torch's dynamic INT8 changes: cosine of all pairs, and which code comes first."""
    tokenizer, here = minilm()[1], made(n_calibration)
    chosen = experiment.functions()[1][:n_docstrings]
    exact = experiment.exact(n_docstrings)
    texts = [f.query for f in chosen], [f.code for f in chosen]
    other = [experiment.embeddings(here[AGAIN[1]], tokenizer, t) for t in texts]
    firsts = [(q @ c.T).argmax(1) for q, c in (exact, other)]
    return {
        "least cosine to fp32": evaluate.cosines(exact[0], other[0])["min"],
        "same code found first (%)": 100 * (firsts[0] == firsts[1]).float().mean().item(),
        "MRR, fp32": evaluate.retrieval_mrr(*exact).mean,
        "MRR, INT8": evaluate.retrieval_mrr(*other).mean,
    }


def rank_rows(n_docstrings: int, n_calibration: int) -> list[dict]:
    """`ranks` as a table."""
    found = ranks(n_docstrings, n_calibration)
    return [{"figure": k, "torch dynamic INT8": round(v, 3), "kind": "measured"}
            for k, v in found.items()]  # fmt: skip


# --- Verdicts ------------------------------------------------------------------------------------


def size_verdict(rows: list[dict]) -> dict:
    """Arguments of the verdict on 75 %, from `grids.file_rows`."""
    smaller = {row["stored"]: row["smaller by (%)"] for row in rows}
    shown = {
        "linear maps alone: smaller by (%)": smaller["linear maps, per channel"],
        "tables too: smaller by (%)": smaller["linear maps and tables, per channel"],
        "tables too, groups of 32: smaller by (%)": smaller["linear maps and tables, groups of 32"],
    }
    condition = "if the embedding tables are quantized too; scales per channel cost under 1 point"
    return dict(holds=True, kind="measured", condition=condition,
                figures={k: round(v, 1) for k, v in shown.items()})  # fmt: skip


def accuracy_verdict(rows: list[dict]) -> dict:
    """Arguments of the verdict on accuracy, from `accuracy_rows` and the recorded engines."""
    p5 = {row["INT8 linear layers"]: row["cosine, p5"] for row in rows}
    ours, torchs = row_of("OpenVINO INT8"), row_of("torch dynamic INT8")
    shown = {
        "5th percentile of the cosine, dynamic, a scale a channel": p5["dynamic"],
        "dynamic, one scale a weight": p5["dynamic, weights per tensor"],
        "static, smoothed": p5["static, smoothed"],
        "static, range cut at the 99.9th percentile": p5["static, 99.9th percentile"],
        "OpenVINO INT8, least cosine (recorded)": ours["cosine min"],
        "its MRR less fp32's (recorded)": ours["mrr"] - ours["mrr fp32"],
        "torch dynamic INT8, least cosine (recorded)": torchs["cosine min"],
    }
    condition = "if each channel has its own range and outliers are moved, not cut off"
    return dict(holds=True, kind="measured", condition=condition,
                figures={k: round(v, 4) for k, v in shown.items()})  # fmt: skip
