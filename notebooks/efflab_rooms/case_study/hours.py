"""Notebook 14's 72 hours: tokens, devices, utilization, beside published runs."""

from functools import lru_cache
from math import log10

from efflab.config import ModelConfig
from efflab.devices import DEVICES
from efflab.distributed.plan import fitting_plans
from efflab.distributed.split import Cluster, Plan, Training
from efflab.errors import require, require_one_of
from efflab.lab import Choice, Evidence, Slider, colours, explorer, figures, number, tr
from efflab_rooms.case_study import training_run

N_PARAMS, DAYS, SEQ_LEN = 100e9, 3, 2048
GPUS = ("V100 SXM2", "A100 80GB SXM", "H100 SXM")
MODEL = ModelConfig(80, 80, 10240, 40960, 51200, SEQ_LEN, causal=True)
"""A GPT of 101 billion parameters: the shape of Megatron's 76 B row with 80 layers."""


def run_rows() -> list[dict]:
    """Published runs: days, utilization by 6 N D, and the devices that 72 hours would take."""
    return [
        {
            "run": run.name,
            "parameters (B)": run.n_params / 1e9,
            "tokens (B)": run.n_tokens / 1e9,
            "devices": run.n_devices,
            "days": run.days,
            "utilization (%)": 100 * run.utilization,
            "devices for 72 hours": round(run.devices_for(DAYS)),
            "kind": "published",
        }
        for run in training_run.published_runs()
    ]


def best_run() -> training_run.TrainingRun:
    """The run with the highest utilization."""
    return max(training_run.published_runs(), key=lambda run: run.utilization)


def largest_cluster() -> int:
    """Devices of the largest run."""
    return max(run.n_devices or 0 for run in training_run.published_runs())


def need_rows() -> list[dict]:
    """What 72 hours take on each device at the best published utilization, and give at most."""
    utilization, n = best_run().utilization, largest_cluster()
    return [
        {
            "device": name,
            "for 300 B tokens": round(training_run.devices_needed(
                N_PARAMS, 300e9, DAYS, DEVICES[name], utilization)),
            f"B tokens on {n:,}": training_run.tokens_possible(
                N_PARAMS, DAYS, n, DEVICES[name], utilization) / 1e9,
            "kind": "computed",
        }
        for name in GPUS
    ]  # fmt: skip


# --- The parallel plan -----------------------------------------------------------------------


PLANS = {
    "any split": (0, False),
    "pipeline and data alone": (0, True),
    "pipeline and data alone, ZeRO-1": (1, True),
}
"""What a plan may use: (ZeRO's stage, whether no layer is cut by tensor parallelism)."""


@lru_cache(maxsize=1)
def plans() -> dict[str, Plan | None]:
    """The best plan of each kind on the largest published cluster; None where none fits."""
    n = largest_cluster()
    training = Training(MODEL, DEVICES["A100 80GB SXM"], n, SEQ_LEN, Cluster())
    found = {stage: fitting_plans(training, n, stage) for stage in (0, 1)}
    return {
        name: next((plan for plan in found[stage] if plan.tp == 1 or not uncut), None)
        for name, (stage, uncut) in PLANS.items()
    }


def plan_rows() -> list[dict]:
    """Each plan's split, memory, utilization, and the days of 300 billion tokens."""
    rows = []
    tokens_a_step = largest_cluster() * SEQ_LEN
    for name, plan in plans().items():
        row = {"plan": name, "tensor": None, "pipeline": None, "data": None, "GB a card": None,
               "utilization (%)": None, "days for 300 B tokens": None}  # fmt: skip
        if plan:
            row |= {"tensor": plan.tp, "pipeline": plan.pp, "data": plan.dp}
            row |= {"GB a card": plan.memory_bytes / 1e9, "utilization (%)": 100 * plan.mfu}
            row["days for 300 B tokens"] = 300e9 / tokens_a_step * plan.step_seconds / 86400
        rows.append(row | {"kind": "computed"})
    return rows


# --- The verdict's figures -------------------------------------------------------------------


def hours_evidence() -> list[Evidence]:
    """What `verdicts.ernie_72h` rests on."""
    best, n = best_run(), largest_cluster()
    a100, v100 = DEVICES["A100 80GB SXM"], DEVICES["V100 SXM2"]
    tokens = training_run.tokens_possible(N_PARAMS, DAYS, n, a100, best.utilization)
    needed = [training_run.devices_needed(N_PARAMS, 300e9, DAYS, device, best.utilization)
              for device in (a100, v100)]  # fmt: skip
    shortest = min(run.days for run in training_run.published_runs() if run.days)
    best_plan, _, without = plans().values()
    reached = "billions of tokens in 72 hours, largest published cluster at the best utilization"
    wanted = "{gpu}s that 300 billion tokens need in 72 hours at that utilization"
    days = "days of the shortest published run whose devices are known"
    speed = "speed of the best plan without tensor parallelism over the best plan"
    share = "best utilization of the published runs (%)"
    ratio = best_plan.step_seconds / without.step_seconds
    return [
        Evidence("tokens", reached, tokens / 1e9, "", "computed"),
        Evidence("a100s", wanted, needed[0], "", "computed", values={"gpu": "A100"}),
        Evidence("largest-run", "A100s of the largest published run", n, "", "published"),
        Evidence("utilization", share, 100 * best.utilization, "%", "published"),
        Evidence("shortest-days", days, shortest, "", "published"),
        Evidence("v100s", wanted, needed[1], "", "computed", values={"gpu": "V100"}),
        Evidence("without-tensor", speed, ratio, "", "computed"),
    ]


# --- The explorer ----------------------------------------------------------------------------


@explorer(
    tokens=Slider(16, 2048, 256, scale="log2", unit="B", label="tokens"),
    count=Slider(64, 16384, 2048, scale="log2", label="devices"),
    utilization=Slider(10, 70, 40, step=5, unit="%", label="utilization"),
    device=Choice(GPUS, "A100 80GB SXM", label="device"),
)
def hours(tokens=256, count=2048, utilization=40, device="A100 80GB SXM"):
    """Days of a run by its FLOPs on the chosen cluster, 72 hours, and the published runs."""
    require(16 <= tokens <= 2048, "tokens", tokens, "{low} to {high}", low="16", high="2,048")
    require(64 <= count <= 16384, "count", count, "{low} to {high}", low="64", high="16,384")
    require(10 <= utilization <= 70, "utilization", utilization, "{low} to {high}", low=10, high=70)
    require_one_of("device", device, GPUS)
    card, share = DEVICES[device], utilization / 100
    days = training_run.run_days(N_PARAMS, tokens * 1e9, count, card, share)
    needed = training_run.devices_needed(N_PARAMS, tokens * 1e9, DAYS, card, share)
    most = training_run.tokens_possible(N_PARAMS, DAYS, count, card, share) / 1e9
    meta = {tr("hours"): 24 * days, tr("devices for 72 hours"): needed,
            tr("B tokens in 72 hours"): most}  # fmt: skip
    title = tr("100 B parameters, {tokens} B tokens on {n} x {device}: {days} days",
               tokens=number(tokens), n=number(count), device=device,
               days=number(days))  # fmt: skip
    title += "<br>" + tr("72 hours need {needed}, or at most {most} B tokens",
                         needed=number(round(needed)), most=number(most))  # fmt: skip
    fig = figures.blank(title, tr("FLOPs, 6 x parameters x tokens"), tr("days"), meta=meta,
                        height=440, margin_t=96)  # fmt: skip
    ends = [16e9, 2048e9]
    fig.add_scatter(x=[6 * N_PARAMS * t for t in ends], mode="lines", name=tr("this cluster"),
                    y=[training_run.run_days(N_PARAMS, t, count, card, share) for t in ends],
                    line=dict(color=figures.COLOURS[0]))  # fmt: skip
    fig.add_scatter(x=[6 * N_PARAMS * tokens * 1e9], y=[days], mode="markers", name=tr("chosen"),
                    marker=dict(size=13, color=figures.COLOURS[0]))  # fmt: skip
    runs = [run for run in training_run.published_runs() if run.days]
    fig.add_scatter(x=[6 * run.n_params * run.n_tokens for run in runs], y=[r.days for r in runs],
                    text=[f"{r.name}, {r.n_devices:,}" for r in runs], mode="markers+text",
                    textposition=["top left"] * (len(runs) - 1) + ["bottom right"],
                    name=tr("published, on its own devices"),
                    marker=dict(size=10, symbol="diamond", color=figures.COLOURS[1]))  # fmt: skip
    fig.add_hline(y=DAYS, line=dict(color=colours.DARK, dash="dash", width=1.5))
    fig.add_annotation(text=tr("72 hours"), x=1, xref="paper", y=log10(DAYS), showarrow=False,
                       xanchor="right", yanchor="top")  # fmt: skip
    fig.update_xaxes(type="log", exponentformat="power", dtick=1, range=[21.8, 24.8])
    fig.update_yaxes(type="log", exponentformat="power", dtick=1, range=[-1.2, 3.6])
    return fig.update_layout(legend=dict(x=0.01, y=0.99, yanchor="top"))
