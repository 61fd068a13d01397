"""Notebook 15's planner: which split is fastest, over sizes of the model and counts of devices."""

from functools import lru_cache

from efflab.advice.distributed import best
from efflab.config import PRESETS, ModelConfig
from efflab.cost import num_params
from efflab.devices import DEVICES
from efflab.distributed import plan_fit
from efflab.distributed.split import Plan, Training
from efflab.errors import require_int
from efflab.lab import Evidence, Slider, explorer, figures, number, tr
from efflab_rooms.choose_plan.verdicts import COUNTS, TEXTS

DEVICE = DEVICES["A100 80GB SXM"]
WAYS = ("data", "tensor", "pipeline")


@lru_cache(maxsize=1)
def models() -> dict[str, ModelConfig]:
    """From GPT-2 to Table 1 of Narayanan et al. 2021, by size."""
    found = {name: PRESETS[name] for name in ("gpt2", "gpt3-1.3b")}
    for row in plan_fit.published_rows():
        if row["table"] == 1:
            found[f"{row['params_billions']} B"] = plan_fit.config_of(row)
    return dict(sorted(found.items(), key=lambda item: num_params(item[1])))


def way(plan: Plan) -> str:
    """What it splits besides the batch: "pipeline" wherever layers are dealt out."""
    if plan.pp > 1:
        return "pipeline"
    return "tensor" if plan.tp > 1 else "data"


@lru_cache(maxsize=256)
def fastest(model: str, n_devices: int, texts: int = TEXTS) -> Plan | None:
    """The fastest plan for a step of `texts`, over all ZeRO stages; None where none fits."""
    config = models()[model]
    run = Training(config, DEVICE, texts, min(config.max_len, 2048))
    return best(run, n_devices)


def plans(n_devices: int, texts: int = TEXTS) -> list[tuple[float, Plan]]:
    """(parameters, fastest plan) of every model that fits, the smallest first."""
    found = ((num_params(c), fastest(name, n_devices, texts)) for name, c in models().items())
    return [(n_params, plan) for n_params, plan in found if plan is not None]


def borders(n_devices: int, texts: int = TEXTS) -> tuple[float, float]:
    """(largest size up to which all are data parallel alone, least size from which all have a
    pipeline), in billions of parameters; 0 where the smallest, or the largest, is not so."""
    found = plans(n_devices, texts)
    small, huge = 0.0, 0.0
    for n_params, plan in found:
        if way(plan) != "data":
            break
        small = n_params / 1e9
    for n_params, plan in reversed(found):
        if way(plan) != "pipeline":
            break
        huge = n_params / 1e9
    return small, huge


def rows() -> list[dict]:
    """The fastest plan of each model on each count, as "tensor x pipeline x data"."""
    found = []
    for name, config in models().items():
        row = {"model": name, "parameters (B)": num_params(config) / 1e9}
        for n in COUNTS:
            plan = fastest(name, n)
            row[str(n)] = "-" if plan is None else f"{plan.tp}x{plan.pp}x{plan.dp}"
        found.append(row | {"kind": "computed"})
    return found


COLUMNS = {
    "model": "model",
    "parameters (B)": "parameters (B)",
    "8": "8 devices",
    "64": "64 devices",
    "512": "512 devices",
    "kind": "kind",
}


SMALL = "{n} devices: size up to which data parallel alone is fastest (0: none)"
HUGE = "{n} devices: size from which the fastest plan has a pipeline (0: none)"


def parallel_evidence() -> list[Evidence]:
    """Borders by count, how many pipelines split layers too, and the planner's own error."""
    sizes = []
    for n in COUNTS:
        small, huge = borders(n)
        sizes.append(Evidence(f"small-{n}", SMALL, small, "B", "computed", values={"n": n}))
        sizes.append(Evidence(f"huge-{n}", HUGE, huge, "B", "computed", values={"n": n}))
    piped = [p for n in COUNTS for _, p in plans(n) if way(p) == "pipeline"]
    tensor = 100 * sum(p.tp > 1 for p in piped) / len(piped)
    error = 100 * plan_fit.median_error(plan_fit.left_out())
    split = "plans with a pipeline that split layers too (tensor)"
    planner = "planner's median error on published runs that it was not fitted to"
    return [
        *sizes,
        Evidence("tensor", split, tensor, "%", "computed"),
        Evidence("planner-error", planner, error, "%", "computed"),
    ]


@explorer(
    devices=Slider(8, 1024, 64, scale="log2", label="devices"),
    texts=Slider(128, 4096, TEXTS, scale="log2", unit="texts", label="of a step"),
)
def splits(devices=64, texts=TEXTS):
    """Tensor, pipeline and data degree of the fastest plan over the size of the model."""
    require_int("devices", devices)
    require_int("texts", texts)
    found = plans(devices, texts)
    small, huge = borders(devices, texts)
    title = tr("{n} devices, {texts} texts a step: the fastest split (computed)", n=devices,
               texts=number(texts))  # fmt: skip
    meta = {
        tr("data parallel alone up to (B)"): round(small, 2) or tr("none"),
        tr("a pipeline from (B)"): round(huge, 2) or tr("none"),
        tr("models that fit"): len(found),
    }
    fig = figures.blank(title, tr("parameters (B)"), tr("parts"), meta=meta)
    x = [n_params / 1e9 for n_params, _ in found]
    degrees = {"data": "dp", "tensor": "tp", "pipeline": "pp"}
    for i, (name, key) in enumerate(degrees.items()):
        fig.add_scatter(x=x, y=[getattr(plan, key) for _, plan in found], name=tr(name),
                        mode="lines+markers", **figures.style(i))  # fmt: skip
    fig.update_xaxes(type="log", exponentformat="none")
    fig.update_yaxes(type="log", dtick=0.30103, exponentformat="none")
    return fig
