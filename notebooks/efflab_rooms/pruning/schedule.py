"""Notebook 11's recorded experiment: one-shot against gradual, recovery by round."""

from statistics import mean

from efflab.errors import require_int, require_one_of
from efflab.experiments import pruning_schedule as experiment
from efflab.experiments.record import agrees, expected, recorded, same_python
from efflab.lab import figures, number, tr
from efflab.points import language_model
from efflab.pretrained import read_card

CONTROL = ("one-shot", 0.0)


def schedule_record() -> tuple[dict, dict]:
    """The recorded experiment, and its increases by (schedule, ratio)."""
    kept = recorded(experiment.NAME)
    return kept, experiment.increases(kept)


def ratios(found: dict) -> list[float]:
    """The final ratios that both schedules have."""
    return sorted({ratio for _, ratio in found} - {0.0})


def schedule_rows() -> list[dict]:
    """Bits per byte above the dense model: untrained, after each round, and the seeds' range."""
    found, rows = schedule_record()[1], []
    for ratio, schedule in [(0.0, "one-shot"), *((r, s) for r in ratios(found)
                                                 for s in experiment.SCHEDULES)]:  # fmt: skip
        point = found[schedule, ratio]
        steps = " / ".join(f"{100 * r:.0f}" for r in point["removed"])
        row = {"removed in all (%)": 100 * ratio, "schedule": schedule if ratio else "control"}
        row |= {"removed by round (%)": steps, "before training": round(point["before"][0], 3)}
        row |= {f"after round {i + 1}": round(v, 3) for i, v in enumerate(point["mean"])}
        low, high = point["low"][-1], point["high"][-1]
        row |= {"lowest seed": round(low, 3), "highest seed": round(high, 3), "kind": "recorded"}
        rows.append(row)
    return rows


def curves(ratio: float) -> dict[str, list[dict]]:
    """Schedule -> points of its recorded recovery: rounds trained, mean increase, lowest, highest.

    One-shot has a point more, early in the first round; "control" had nothing removed.
    """
    found, lines = schedule_record()[1], {}
    keys = {name: (name, ratio) for name in experiment.SCHEDULES} | {"control": CONTROL}
    for name, key in keys.items():
        point = found[key]
        ends = zip(point["mean"], point["low"], point["high"], strict=True)
        start = point["before"][0]
        lines[name] = [dict(rounds=0, mean=start, low=start, high=start)]
        lines[name] += [dict(rounds=i, mean=m, low=low, high=high)
                        for i, (m, low, high) in enumerate(ends, start=1)]  # fmt: skip
    early = mean(beginning(ratio).values())
    lines["one-shot"].insert(1, dict(rounds=early_share(), mean=early, low=early, high=early))
    return lines


def early_share() -> float:
    """The share of the first round after which a beginning is measured."""
    settings = schedule_record()[0]["settings"]
    return settings["early"] / settings["steps_per_round"]


def schedule_figure(live: dict[float, float] | None = None):
    """Increase over the dense model by round, a panel for each final ratio.

    `live` {ratio: increase of one-shot early in round 1, measured here}.
    """
    kept, found = schedule_record()
    finals = ratios(found)
    titles = [tr("{n}% removed", n=number(100 * r)) for r in finals]
    title = tr("Recovery by round, equal training (recorded, {n} seeds)", n=len(kept["seeds"]))
    fig = figures.panels(titles, title, shared_yaxes=True, horizontal_spacing=0.03)
    meta = {}
    for column, ratio in enumerate(finals, start=1):
        where = dict(showlegend=column == 1, row=1, col=column)
        lines = curves(ratio)
        control = lines.pop("control")
        for i, (schedule, points) in enumerate(lines.items()):
            _add_curve(fig, points, i, name=tr(schedule), legendgroup=schedule, **where)
            name = tr("{n}%, {name}", n=number(100 * ratio), name=tr(schedule))
            meta[name] = round(points[-1]["mean"], 3)
        fig.add_scatter(x=[p["rounds"] for p in control], y=[p["mean"] for p in control],
                        name=tr("control: nothing removed"), mode="lines",
                        line=dict(color=figures.COLOURS[6], dash="dot"), **where)  # fmt: skip
        if ratio in (live or {}):
            star = dict(symbol="star", size=15, color=figures.COLOURS[2])
            fig.add_scatter(x=[early_share()], y=[live[ratio]], name=tr("now, here (measured)"),
                            mode="markers", marker=star, row=1, col=column)  # fmt: skip
    rounds = list(range(kept["settings"]["n_rounds"] + 1))
    fig.update_xaxes(title_text=tr("rounds of training"), tickvals=rounds)
    fig.update_yaxes(title_text=tr("bits per byte above dense"), col=1)
    fig.update_yaxes(rangemode="tozero")
    return fig.update_layout(meta=meta, legend=dict(orientation="h", y=-0.2), height=440)


def _add_curve(fig, points: list[dict], i: int, **options) -> None:
    """One schedule's mean over the seeds by round, with their range."""
    fig.add_scatter(
        x=[p["rounds"] for p in points],
        y=[p["mean"] for p in points],
        error_y=dict(
            type="data",
            array=[p["high"] - p["mean"] for p in points],
            arrayminus=[p["mean"] - p["low"] for p in points],
        ),
        mode="lines+markers",
        line=dict(color=figures.COLOURS[i], dash=figures.DASHES[i]),
        marker=dict(symbol=figures.MARKERS[i], size=8),
        **options,
    )


def beginning(ratio: float) -> dict[int, float]:
    """Seed -> one-shot's recorded increase over dense early in its first round."""
    kept = schedule_record()[0]
    runs = [r for r in kept["runs"] if (r["schedule"], r["ratio"]) == ("one-shot", ratio)]
    return {r["seed"]: r["early"] - kept["settings"]["dense"] for r in runs}


def again(ratio: float, seed: int = 0) -> tuple[float, list[dict]]:
    """One-shot's beginning anew: its increase over the dense model, and a row beside the record.

    How far the two may lie apart is `record.expected`'s rule. Another Python has other library
    text and another checkpoint other weights, so that nothing can be compared there.
    """
    kept, found = schedule_record()
    require_one_of("ratio", ratio, ratios(found))
    require_int("seed", seed, 0)
    model = language_model()
    live = experiment.early(model, ratio, seed) - experiment.bits(model)
    was, spread = expected(beginning(ratio), seed)
    same = read_card()["sha256"].startswith(kept["models"]["stdlib-gpt"]) and same_python(kept)
    spread = spread if same else None
    row = {"removed (%)": 100 * ratio, "increase here (bits)": live, "increase, recorded": was}
    row |= {"may differ by": spread, "agrees": agrees(live, was, spread), "kind": "measured"}
    return live, [row]


def recovery_rows() -> list[dict]:
    """One-shot: share of the lost quality that is back after each round, against the control (%).

    Then what is missing after the last round, in bits per byte: against the control, which was
    trained as long with nothing removed, and against the dense model.
    """
    found, rows = schedule_record()[1], []
    control = found[CONTROL]["mean"]
    for ratio in ratios(found):
        point = found["one-shot", ratio]
        lost = point["before"][0]
        gaps = [a - c for a, c in zip(point["mean"], control, strict=True)]
        row = {"removed in all (%)": 100 * ratio, "lost at once (bits)": round(lost, 3)}
        row |= {f"back after round {i + 1} (%)": round(100 * (1 - gap / lost))
                for i, gap in enumerate(gaps)}  # fmt: skip
        row |= {"above the control (bits)": round(gaps[-1], 3)}
        row |= {"above dense (bits)": round(point["mean"][-1], 3)}
        rows.append(row | {"kind": "recorded"})
    return rows
