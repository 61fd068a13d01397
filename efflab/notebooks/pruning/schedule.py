"""Notebook 11's recorded experiment: one-shot against gradual, recovery by round, verdicts."""

from statistics import mean

from efflab.errors import require_int, require_one_of
from efflab.experiments import pruning_schedule as experiment
from efflab.experiments.record import agrees, expected, recorded, same_python
from efflab.lab import figures, number, tr
from efflab.points import language_model
from efflab.pretrained import read_card

CONTROL = ("one-shot", 0.0)
RECOVERED = 0.05
"""Quality counts as recovered within this many bits per byte of the unpruned, trained control."""


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


def schedule_figure(live: dict[float, float] | None = None):
    """Increase over the dense model by round, a panel for each final ratio.

    `live` {ratio: increase of one-shot early in round 1, measured here}.
    """
    kept, found = schedule_record()
    n_rounds, finals = kept["settings"]["n_rounds"], ratios(found)
    titles = [tr("{n} % removed", n=number(100 * r)) for r in finals]
    title = tr("Recovery by round, equal training (recorded, {n} seeds)", n=len(kept["seeds"]))
    fig = figures.panels(titles, title, shared_yaxes=True, horizontal_spacing=0.03)
    control = [found[CONTROL]["before"][0], *found[CONTROL]["mean"]]
    rounds, meta = list(range(n_rounds + 1)), {}
    share = kept["settings"]["early"] / kept["settings"]["steps_per_round"]  # of the first round
    for column, ratio in enumerate(finals, start=1):
        first = column == 1
        for i, schedule in enumerate(experiment.SCHEDULES):
            point = found[schedule, ratio]
            x, y = list(rounds), [point["before"][0], *point["mean"]]
            above = [0, *(h - m for h, m in zip(point["high"], point["mean"], strict=True))]
            below = [0, *(m - v for v, m in zip(point["low"], point["mean"], strict=True))]
            if schedule == "one-shot":
                for values, new in (
                    (x, share),
                    (y, mean(beginning(ratio).values())),
                    (above, 0),
                    (below, 0),
                ):
                    values.insert(1, new)
            style = dict(color=figures.COLOURS[i], dash=figures.DASHES[i])
            fig.add_scatter(x=x, y=y, name=tr(schedule), line=style, showlegend=first,
                            legendgroup=schedule, mode="lines+markers",
                            marker=dict(symbol=figures.MARKERS[i], size=8),
                            error_y=dict(type="data", array=above, arrayminus=below),
                            row=1, col=column)  # fmt: skip
            meta[tr("{n} %, {name}", n=number(100 * ratio), name=tr(schedule))] = round(y[-1], 3)
        fig.add_scatter(x=rounds, y=control, name=tr("control: nothing removed"), mode="lines",
                        line=dict(color=figures.COLOURS[6], dash="dot"), showlegend=first,
                        row=1, col=column)  # fmt: skip
        if ratio in (live or {}):
            star = dict(symbol="star", size=15, color=figures.COLOURS[2])
            fig.add_scatter(x=[share], y=[live[ratio]], name=tr("now, here (measured)"),
                            mode="markers", marker=star, row=1, col=column)  # fmt: skip
    fig.update_xaxes(title_text=tr("rounds of training"), tickvals=rounds)
    fig.update_yaxes(title_text=tr("bits per byte above dense"), col=1)
    fig.update_yaxes(rangemode="tozero")
    return fig.update_layout(meta=meta, legend=dict(orientation="h", y=-0.2), height=440)


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

    `left` is what still misses after the last round, in bits per byte.
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
        rows.append(row | {"still missing (bits)": round(gaps[-1], 3), "kind": "recorded"})
    return rows


# --- Verdicts --------------------------------------------------------------------------------


def advantage(ratio: float) -> list[float]:
    """By seed, how many bits per byte better gradual ended than one-shot."""
    runs = recorded(experiment.NAME)["runs"]
    last = {(r["schedule"], r["seed"]): r["rounds"][-1]["after"]
            for r in runs if r["ratio"] == ratio}  # fmt: skip
    seeds = sorted({seed for _, seed in last})
    return [last["one-shot", s] - last["gradual", s] for s in seeds]


def percent(ratio: float) -> str:
    """A share as people say it: 0.5 is "50"."""
    return number(100 * ratio)


def gradual_verdict() -> dict:
    """Arguments of the verdict on raising the ratio step by step: does it beat one-shot?"""
    found = schedule_record()[1]
    gains = {ratio: advantage(ratio) for ratio in ratios(found)}
    won = [percent(ratio) for ratio, gain in gains.items() if min(gain) > 0.01]
    figures_ = {f"{percent(ratio)} % removed: gradual better by (bits)": round(mean(gain), 3)
                for ratio, gain in gains.items()}  # fmt: skip
    most = max(gains)
    point, name = found["one-shot", most], f"{percent(most)} % at once: bits above dense"
    figures_[f"{name}, untrained"] = round(point["before"][0], 2)
    figures_[f"{name}, trained"] = round(point["mean"][-1], 2)
    condition = "with equal training, one-shot ended as well or better at every ratio"
    if won:
        condition = "{n} % are removed, with equal training; elsewhere it gained nothing"
    if len(won) == len(gains):
        condition = "measured at {n} %, with equal training"
    return dict(holds=bool(won), figures=figures_, kind="recorded", condition=condition,
                n=", ".join(won))  # fmt: skip


def finetune_verdict() -> dict:
    """Arguments of the verdict on recovery in two or three rounds."""
    rows = recovery_rows()
    missing = {number(row["removed in all (%)"]): row["still missing (bits)"] for row in rows}
    back = [ratio for ratio, gap in missing.items() if gap <= RECOVERED]
    gone = [ratio for ratio in missing if ratio not in back]
    figures_ = {f"{n} % removed: still missing (bits)": gap for n, gap in missing.items()}
    for i in (1, 2, 3):
        last = number(rows[-1]["removed in all (%)"])
        figures_[f"{last} % removed: back after round {i} (%)"] = rows[-1][
            f"back after round {i} (%)"
        ]
    condition = "three short rounds did not suffice at {more} %"
    if back:
        condition = "{n} % are removed; at {more} % three short rounds did not suffice"
    if not gone:
        condition = "measured up to {n} %"
    return dict(holds=bool(back), figures=figures_, kind="recorded", condition=condition,
                n=", ".join(back), more=", ".join(gone))  # fmt: skip


def compute_verdict(speed: list[dict], products: list[dict]) -> dict:
    """Arguments of the verdict on computation: masks against removal."""
    time = {row["pruned"]: row["time, ratio"] for row in speed}
    flops = {row["pruned"]: row["FLOPs, ratio"] for row in speed}
    csr = {row["zeros (%)"]: row["CSR kernel, time ratio"] for row in products}
    masked, removed = time["90 % of the weights, masked"], time["heads and FFN neurons, removed"]
    figures_ = {
        "90 % of the weights masked: time, ratio": masked,
        "heads removed: FLOPs, ratio": flops["heads, removed"],
        "heads removed: time, ratio": time["heads, removed"],
        "heads and neurons removed: FLOPs, ratio": flops["heads and FFN neurons, removed"],
        "heads and neurons removed: time, ratio": removed,
        "CSR kernel at 50 % zeros: time, ratio": csr[50.0],
        "2:4 on a GPU's sparse units: peak throughput, ratio (published)": 2,
    }
    condition = (
        "whole heads or neurons are taken out; masked weights cost as much as before, and 2:4 "
        "needs hardware made for it"
    )
    return dict(holds=removed < masked, figures=figures_, kind="measured", condition=condition)
