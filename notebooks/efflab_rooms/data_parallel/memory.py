"""Notebook 12's ZeRO: what a rank holds by stage, the paper's table, and the cards that fit."""

from collections.abc import Mapping
from functools import lru_cache

from efflab import cost, data
from efflab.devices import DEVICES
from efflab.distributed import zero
from efflab.distributed.launch import RankPool
from efflab.distributed.zero import FP32_ADAM, Held
from efflab.errors import require, require_int, require_one_of
from efflab.lab import Choice, Evidence, Slider, colours, explorer, figures, number, tr
from efflab_rooms.data_parallel import equal, verdicts

N_PARAMS = cost.num_params(equal.CONFIG)
PARTS = ("weights", "gradients", "optimizer", "gathered", "step")


@lru_cache(maxsize=8)
def held(pool: RankPool, batch_size: int, seq_len: int) -> dict[int, list[Held]]:
    """What each rank holds, by stage; 0 is plain DDP."""
    plain = equal.job(batch_size, seq_len, 3)
    return {
        stage: pool.run(zero.on_rank, zero.Job(plain.config, plain.ids, plain.targets, stage),
                        timeout=equal.SECONDS)
        for stage in zero.STAGES
    }  # fmt: skip


def state(h: Held) -> int:
    """A rank's weights, gradients and optimizer state during a step, gathered weights included."""
    return h.state + h.gathered


def whole(h: Held) -> int:
    """The most that a step needs; what is gathered is part of `step` already."""
    return h.state + h.step


def formula(n_ranks: int, stage: int) -> float:
    """The paper's bytes a rank, for fp32 and Adam."""
    return cost.model_state_bytes(N_PARAMS, n_ranks, stage, **FP32_ADAM)


def stage_rows(pools: Mapping[int, RankPool], batch_size: int, seq_len: int) -> list[dict]:
    """Each stage on the busiest rank: parts, the paper's formula, ratio, bytes on the wire."""
    rows = []
    for n, pool in pools.items():
        for stage, ranks in held(pool, batch_size, seq_len).items():
            most = max(ranks, key=state)
            rows.append({
                "ranks": n, "stage": stage,
                "weights (MB)": most.weights / 1e6, "gradients (MB)": most.gradients / 1e6,
                "optimizer (MB)": most.optimizer / 1e6, "gathered (MB)": most.gathered / 1e6,
                "state (MB)": state(most) / 1e6, "formula (MB)": formula(n, stage) / 1e6,
                "ratio": state(most) / formula(n, stage), "kind": "measured",
            })  # fmt: skip
    return rows


def training_rows(pool: RankPool, batch_size: int, seq_len: int) -> list[dict]:
    """That every stage trains alike, and what it sends."""
    rows, by_stage = [], held(pool, batch_size, seq_len)
    for stage, ranks in by_stage.items():
        apart = max(abs(a - b) for mine, plain in zip(ranks, by_stage[0], strict=True)
                    for a, b in zip(mine.losses, plain.losses, strict=True))  # fmt: skip
        part = (pool.n_procs - 1) / pool.n_procs * 4 * N_PARAMS
        rows.append({
            "stage": stage, "last loss, rank 0": round(ranks[0].losses[-1], 3),
            "furthest from DDP (nats)": apart,
            "sent, in weights (measured)": max(h.sent for h in ranks) / part,
            "sent, in weights (paper)": 3 if stage == 3 else 2,
        })  # fmt: skip
    return rows


def stages_figure(pool: RankPool, batch_size: int, seq_len: int):
    """A whole step of the busiest rank by part and stage."""
    found = {s: max(h, key=whole) for s, h in held(pool, batch_size, seq_len).items()}
    names = [tr("DDP") if s == 0 else f"ZeRO-{s}" for s in found]
    series = {}
    for part in PARTS:
        values = [getattr(h, part) - (h.gathered if part == "step" else 0) for h in found.values()]
        series[tr(PART_NAMES[part])] = [v / 1e6 for v in values]
    share = [whole(h) / whole(found[0]) for h in found.values()]
    labels = [f"{name}<br>{100 * s:.0f} %" for name, s in zip(names, share, strict=True)]
    title = tr("A step of a rank, {n} ranks (measured): of DDP's memory", n=pool.n_procs)
    meta = {name: round(100 * s) for name, s in zip(names, share, strict=True)}
    fig = figures.bars(labels, series, title, "", "MB", stacked=True, meta=meta)
    return fig.update_layout(legend=dict(orientation="h", y=-0.2, traceorder="normal"))


PART_NAMES = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "gathered": "gathered weights",
    "step": "activations and buffers",
}


def paper_rows() -> list[dict]:
    """Rajbhandari et al. 2020, Table 1, beside the formula: 7.5 B parameters, GB a device."""
    rows = []
    for row in data.published("zero"):
        n_params, n = 1e9 * row["params_billions"], row["dp_degree"]
        by_formula = [cost.model_state_bytes(n_params, n, s) / 1e9 for s in (1, 2, 3)]
        rows.append({"devices": row["dp_degree"]} | {
            f"stage {s}: {what}": value
            for s, computed in zip((1, 2, 3), by_formula, strict=True)
            for what, value in (("paper", row[f"stage{s}_gb"]), ("formula", computed))
        })  # fmt: skip
    return rows


def split_rows(n_ranks: int = 4) -> list[dict]:
    """What a rank holds and computes: ZeRO beside what the article takes it for."""
    nth = f"1/{n_ranks}"
    return [
        {"way": "data parallel", "weights held": "all", "layers computed": "all", "rows": nth,
         "sent": "gradients"},
        {"way": "ZeRO-3", "weights held": nth, "layers computed": "all", "rows": nth,
         "sent": "gradients and weights"},
        {"way": "pipeline parallel", "weights held": nth, "layers computed": nth, "rows": "all",
         "sent": "activations between layers"},
        {"way": "tensor parallel", "weights held": nth,
         "layers computed": tr("{nth} of each", nth=nth), "rows": "all",
         "sent": "activations inside layers"},
    ]  # fmt: skip


STEP = "whole step a rank: stage {stage} over stage {before}"
STATE = "model's state a rank: stage {stage} over stage {before}"


def zero_evidence(pool: RankPool, batch_size: int, seq_len: int) -> list[Evidence]:
    """Whole step and state of each stage over the one before, and over DDP."""
    by_stage = held(pool, batch_size, seq_len)
    n = pool.n_procs
    steps = {s: max(map(whole, ranks)) for s, ranks in by_stage.items()}
    states = {s: max(map(state, ranks)) for s, ranks in by_stage.items()}
    ratios = [states[s] / formula(n, s) for s in by_stage]
    sent = max(h.sent for h in by_stage[3]) / max(h.sent for h in by_stage[0])
    by_stage_before = []
    for stage in verdicts.STAGES:
        values = {"stage": stage, "before": stage - 1}
        for key, name, bytes_of in (("step", STEP, steps), ("state", STATE, states)):
            share = 100 * bytes_of[stage] / bytes_of[stage - 1]
            by_stage_before.append(Evidence(f"{key}-{stage}", name, share, "%", values=values))
    step, state_left = (100 * bytes_of[3] / bytes_of[0] for bytes_of in (steps, states))
    furthest = max(ratios, key=lambda ratio: abs(ratio - 1))
    return [
        Evidence("step", "whole step a rank: ZeRO-3 over DDP", step, "%"),
        Evidence("state", "model's state a rank: ZeRO-3 over DDP", state_left, "%"),
        *by_stage_before,
        Evidence("formula", "model's state: measured over formula, furthest from 1", furthest, "x"),
        Evidence("sent", "bytes that a rank sends in a step: ZeRO-3 over DDP", sent, "x"),
    ]


# --- The explorer ----------------------------------------------------------------------------

OPTIMIZERS = {"Adam": 2, "momentum": 1, "plain SGD": 0}
"""Numbers of the weights' size that an optimizer keeps."""
PRECISIONS = ("mixed", "fp32")
RANKS = [2**i for i in range(11)]


def bytes_a_parameter(optimizer: str, precision: str) -> dict[str, float]:
    """Bytes of weight, gradient and optimizer state; mixed precision adds an fp32 master copy."""
    moments = 4 * OPTIMIZERS[optimizer]
    if precision == "fp32":
        return dict(param_bytes=4, grad_bytes=4, optimizer_bytes=moments)
    return dict(param_bytes=2, grad_bytes=2, optimizer_bytes=4 + moments)


@explorer(
    billions=Slider(0.125, 1024.0, 8.0, scale="log2", unit="B", label="parameters"),
    ranks=Slider(1, 1024, 64, scale="log2", label="ranks"),
    stage=Choice(zero.STAGES, 2, label="ZeRO stage"),
    optimizer=Choice(tuple(OPTIMIZERS), "Adam", label="optimizer"),
    precision=Choice(PRECISIONS, "mixed", label="precision"),
)
def cards(billions=8.0, ranks=64, stage=2, optimizer="Adam", precision="mixed"):
    """GB of model state a card over the ranks, every stage, and the cards that hold it."""
    require(
        0.125 <= billions <= 1024, "billions", billions, "{low} to {high}", low=0.125, high=1024
    )
    require_int("ranks", ranks)
    require(ranks <= 1024, "ranks", ranks, "at most {high}", high=1024)
    require_one_of("stage", stage, zero.STAGES)
    require_one_of("optimizer", optimizer, OPTIMIZERS)
    require_one_of("precision", precision, PRECISIONS)
    each = bytes_a_parameter(optimizer, precision)

    def gb(n: int, s: int) -> float:
        return cost.model_state_bytes(1e9 * billions, n, s, **each) / 1e9

    mine = gb(ranks, stage)
    memories = {d.name: d.memory_bytes / 1e9 for d in DEVICES.values() if d.memory_bytes}
    sizes = sorted(set(memories.values()))
    fitting = [size for size in sizes if size >= mine]
    verdict = (tr("fits a card of {gb} GB", gb=number(fitting[0])) if fitting
               else tr("fits no card of {gb} GB", gb=number(sizes[-1])))  # fmt: skip
    least = next((n for n in RANKS if gb(n, stage) <= sizes[-1]), None)
    too_few = tr("more than {n}", n=number(RANKS[-1]))
    meta = {
        "GB": mine,
        tr("ranks needed, {gb} GB a card", gb=number(sizes[-1])): least or too_few,
    }
    title = tr("{b} B parameters, stage {s}, {n} ranks: {gb} GB a card (computed)",
               b=number(billions), s=stage, n=number(ranks), gb=number(mine))  # fmt: skip
    fig = figures.blank(f"{title}<br>{verdict}", tr("ranks"), tr("GB a card, model state"),
                        meta=meta, height=460)  # fmt: skip
    for s in zero.STAGES:
        name = tr("DDP") if s == 0 else f"ZeRO-{s}"
        fig.add_scatter(x=RANKS, y=[gb(n, s) for n in RANKS], name=name, mode="lines+markers",
                        **figures.style(s, width=4 if s == stage else 1.5))  # fmt: skip
    ring = dict(size=16, color=colours.CLEAR, line=dict(color=colours.BLACK, width=2))
    fig.add_scatter(x=[ranks], y=[mine], mode="markers", showlegend=False, marker=ring)
    for size in sizes:  # lines of their own: plotly sets a mark's label wrong on a log axis
        label, side = tr("{gb} GB", gb=number(size)), "bottom" if size == sizes[0] else "top"
        fig.add_scatter(x=[RANKS[0], RANKS[-1]], y=[size] * 2, mode="lines+text", text=["", label],
                        textposition=f"{side} left", showlegend=False,
                        line=dict(color=colours.DARK, dash="dash", width=1))  # fmt: skip
    fig.update_xaxes(type="log", tickvals=RANKS, ticktext=[f"{n:,}" for n in RANKS])
    fig.update_yaxes(type="log", exponentformat="power", dtick=1)
    return fig.update_layout(margin_t=84, title=dict(y=0.95, yanchor="top"))
