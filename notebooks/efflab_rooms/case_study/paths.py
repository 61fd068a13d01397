"""Notebook 14's paths: quality and FLOPs after each step, and what another order comes to."""

from itertools import pairwise
from statistics import mean

from efflab import points
from efflab.estimate import paired
from efflab.experiments import case_study, lighten
from efflab.experiments.case_study import EARLY, MAIN, PATHS, difference, paths
from efflab.experiments.record import agrees, expected, same_python
from efflab.lab import figures, number, tr
from efflab_rooms.case_study import where

INT8 = "OpenVINO INT8"


def shipped_row() -> dict:
    """The model as shipped, as a step before all steps."""
    flops = lighten.forward_flops(points.language_model(), case_study.SEQ_LEN)
    bits = where.record()["settings"]["shipped"]
    return dict(step="as shipped", bits=bits, low=bits, high=bits, flops=flops)


def steps(path: str = MAIN) -> list[dict]:
    """Steps of a path with the model as shipped before and INT8 behind; of all seeds."""
    runs = paths(where.record(), path)
    rows = [shipped_row(), *case_study.waterfall(runs)]
    ends = [case_study.end_bits(run, INT8) for run in runs.values()]
    last = dict(step="INT8", bits=mean(ends), low=min(ends), high=max(ends))
    return [*rows, last | dict(flops=rows[-1]["flops"])]


def step_rows(path: str = MAIN) -> list[dict]:
    """A row for each step: bits per byte with the seeds' range, FLOPs over those as shipped."""
    rows = steps(path)
    return [
        {
            "step": row["step"],
            "bits per byte": row["bits"],
            "lowest seed": row["low"],
            "highest seed": row["high"],
            "FLOPs / as shipped": row["flops"] / rows[0]["flops"],
            "kind": "recorded",
        }
        for row in rows
    ]


def waterfall_figure(path: str = MAIN):
    """What each step adds to bits per byte, and the FLOPs that are left after it."""
    rows = steps(path)
    names = [f"{i} {tr(row['step'])}" for i, row in enumerate(rows)]
    change = [
        rows[0]["bits"],
        *(b["bits"] - a["bits"] for a, b in pairwise(rows)),
    ]
    title = tr("{n} steps: {first} to {last} bits per byte, {share}% of the FLOPs (recorded)",
               n=len(rows) - 1, first=number(rows[0]["bits"]), last=number(rows[-1]["bits"]),
               share=number(100 * rows[-1]["flops"] / rows[0]["flops"]))  # fmt: skip
    titles = [tr("bits per byte"), tr("GFLOP for 512 tokens")]
    meta = {tr("bits per byte at the end"): rows[-1]["bits"]}
    fig = figures.panels(titles, title, meta=meta, horizontal_spacing=0.14)
    fig.add_waterfall(x=names, y=change, measure=["absolute"] + ["relative"] * (len(rows) - 1),
                      text=[number(row["bits"], 4) for row in rows], textposition="outside",
                      increasing_marker_color=figures.COLOURS[1], showlegend=False,
                      decreasing_marker_color=figures.COLOURS[2],
                      totals_marker_color=figures.COLOURS[0], row=1, col=1)  # fmt: skip
    top = max(row["bits"] for row in rows)
    fig.update_yaxes(range=[0.9, top + 0.12 * (top - 0.9)], row=1, col=1)
    flops = [row["flops"] / 1e9 for row in rows]
    fig.add_bar(x=names, y=flops, text=[number(v) for v in flops], textposition="outside",
                marker_color=figures.COLOURS[0], showlegend=False, row=1, col=2)  # fmt: skip
    fig.update_yaxes(range=[0, 1.15 * max(flops)], row=1, col=2)
    fig.update_xaxes(tickangle=-35)
    return fig.update_layout(height=430, margin_t=96)


def order_rows() -> list[dict]:
    """Every other order's end in INT8 against the main one's, paired by seed."""
    record = where.record()
    main, rows = paths(record, MAIN), []
    for path, order in PATHS.items():
        if not order:
            continue
        runs = paths(record, path)
        row = {"path": path, "steps": ", ".join(tr(step) for step in (*order, "INT8"))}
        row["bits per byte"] = mean(case_study.end_bits(run) for run in runs.values())
        if path != MAIN:
            found = difference(runs, main)
            row |= {"above the first path": found.mean, "from": found.low, "to": found.high}
        rows.append(row | {"kind": "recorded"})
    return rows


def control_difference():
    """Bits per byte after "lighten, tune", above the plain model tuned as long; by seed."""
    record = where.record()
    light, plain = paths(record, MAIN), paths(record, "all after INT8")
    seeds = sorted(set(light) & set(plain))
    return paired([light[s]["rows"][1]["bits"] for s in seeds],
                  [plain[s]["rows"][0]["bits"] for s in seeds])  # fmt: skip


def live_rows(seed: int) -> list[dict]:
    """The lightened model after the first steps of its round, trained here, beside the record."""
    record = where.record()
    early = {s: run["early"] for s, run in paths(record, MAIN, "fp32").items()}
    model = lighten.lightened(points.language_model(), where.chosen())
    trained = case_study.tune(model, "fp32", seed, 0, stop=EARLY)
    here = points.language_quality(trained).mean
    value, spread = expected(early, seed)
    fits = agrees(here, value, spread if same_python(record) else None)
    word = {True: "as recorded", False: "differs", None: "another Python's corpus"}[fits]
    return [
        {"steps": EARLY, "seed": seed, "bits per byte here": here, "recorded": value,
         "within": spread, "result": word, "kind": "measured"}
    ]  # fmt: skip
