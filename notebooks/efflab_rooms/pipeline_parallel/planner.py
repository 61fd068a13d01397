"""Notebook 13's planner: the best split of a run, and its predictions beside published rows."""

from functools import lru_cache

from efflab.config import PRESETS
from efflab.devices import DEVICES
from efflab.distributed import plan_fit
from efflab.distributed.plan import best_plan, fitting_plans
from efflab.distributed.split import Plan, Training

MODELS = ("bert-large", "gpt2-xl", "gpt3-1.3b", "gpt3-175b")
SEQ_LEN, BATCH = 2048, 1536


def plan_row(model: str, n_devices: int, plan: Plan | None) -> dict:
    """A plan in one row; dashes where none fits."""
    row: dict = {"model": model, "devices": n_devices, "tensor": None, "pipeline": None,
                 "data": None, "micro-batches": None, "GB a card": None,
                 "utilization (%)": None}  # fmt: skip
    if plan:
        row |= {"tensor": plan.tp, "pipeline": plan.pp, "data": plan.dp}
        row |= {"micro-batches": plan.n_microbatches, "GB a card": plan.memory_bytes / 1e9}
        row |= {"utilization (%)": 100 * plan.mfu}
    return row | {"kind": "computed"}


def plan_rows() -> list[dict]:
    """The best plan of each model on more and more A100s; none where it does not fit."""
    device, rows = DEVICES["A100 80GB SXM"], []
    for model in MODELS:
        for n in (8, 64, 512):
            config = PRESETS[model]
            length = min(SEQ_LEN, config.max_len)
            plans = fitting_plans(Training(config, device, BATCH, length), n)
            rows.append(plan_row(model, n, next(iter(plans), None)))
    return rows


def refusal() -> str:
    """How the planner says that a model has no room, and what would do."""
    try:
        best_plan(PRESETS["gpt3-175b"], 8, DEVICES["A100 80GB SXM"], global_batch=BATCH,
                  seq_len=SEQ_LEN)  # fmt: skip
    except ValueError as error:
        return str(error)
    raise AssertionError("GPT-3 fits eight cards")  # which a test would notice


@lru_cache(maxsize=1)
def left_out() -> list[dict]:
    """Megatron's rows, each predicted by constants fitted on other models' rows."""
    return plan_fit.left_out()


def megatron_rows() -> list[dict]:
    """Published TFLOP/s a device beside the prediction, row by row."""
    return [
        {
            "table": row["table"], "scheme": row["scheme"],
            "parameters (B)": row["params_billions"], "devices": row["gpus"],
            "tensor": row["tensor_parallel"], "pipeline": row["pipeline_parallel"],
            "published (TFLOP/s)": row["tflops_per_gpu"], "predicted": row["predicted"],
            "error (%)": 100 * row["error"], "kind": "published",
        }
        for row in left_out()
    ]  # fmt: skip


def error_rows() -> list[dict]:
    """Median errors of the model, and of one number for all rows of Table 1."""
    rows = left_out()
    tables = {n: [row for row in rows if row["table"] == n] for n in (1, 2)}
    found = {
        "Table 1, the model": tables[1],
        "Table 1, one number for all": plan_fit.one_number(),
        "Table 2, the model": tables[2],
    }
    return [
        {"rows": name, "count": len(some), "median error (%)": 100 * plan_fit.median_error(some),
         "largest (%)": 100 * max(abs(row["error"]) for row in some), "kind": "computed"}
        for name, some in found.items()
    ]  # fmt: skip


def zero_rows() -> list[dict]:
    """Tensor and pipeline against ZeRO-3: how many times faster, published and predicted."""
    return [
        {"parameters (B)": pair["params_billions"], "devices": pair["devices"],
         "published": pair["published"], "predicted": pair["predicted"],
         "ranked right": pair["is_right"], "kind": "published"}
        for pair in plan_fit.ranking(left_out())
    ]  # fmt: skip
