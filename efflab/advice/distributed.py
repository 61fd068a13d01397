"""Gains of several devices: data parallelism, ZeRO, and the planner's split."""

from operator import attrgetter

from efflab import cost
from efflab.advice import serving
from efflab.advice.case import ADAM_BYTES, SERVING, Case
from efflab.advice.technique import Gain, Loss, Technique
from efflab.distributed.plan import fitting_plans
from efflab.distributed.split import ZERO_STAGES, Plan, Split, Training

PLANNER = "efflab.distributed.plan"
ONE = "there is one device"
SAME = Loss(
    0.0, "equal to one process up to rounding", "recorded", "notebooks/12_data_parallel.ipynb"
)
SPLIT = {"latency": "it splits training; a text still runs on one device"}
SPLIT |= {"checkpoint": "the same weights"}
"""Answers of all techniques here."""
WHOLE = "each device holds all weights and the cache of its own texts"
GATHERS = "each token would gather all weights over the network, which is slower than memory"
SPLITS = "its splits are searched for a training step; for a token, use tensor parallelism"
GLOBAL_BATCH = 512
"""Sequences per step for the planner: few for many devices, so that splits matter."""


def techniques(case: Case) -> list[Technique]:
    """The techniques of chapter 4."""
    found = [ddp(case), zero(case), plan(case)]
    return found + ([tensor_parallel(case)] if case.budget in SERVING else [])


def training(case: Case) -> Training | None:
    """The case as the planner's `Training`; None for serving, and for one device."""
    if case.gpu is None or case.n_devices == 1 or case.budget in SERVING:
        return None
    return Training(case.config, case.gpu, GLOBAL_BATCH, case.tokens)


def best(run: Training, n_devices: int, *, lean: bool = False) -> Plan | None:
    """The fastest plan over all ZeRO stages, or the one with least memory; None if none fits."""
    plans = [plan for stage in ZERO_STAGES for plan in fitting_plans(run, n_devices, stage)]
    key = attrgetter("memory_bytes" if lean else "step_seconds")
    return min(plans, key=key, default=None)


def plain_data_parallel(run: Training, n_devices: int, zero_stage: int = 0) -> Plan | None:
    """The fastest plan that splits only the batch; None if it does not fit."""
    plans = fitting_plans(run, n_devices, zero_stage)
    return next((p for p in plans if p.tp == p.pp == 1), None)


def _days(run: Training, best_plan: Plan | None, why: str, source: str = PLANNER) -> Gain | str:
    """The plan's gain over one device, or `why` there is no plan."""
    if best_plan is None:
        return why
    # one device with unlimited memory, one sequence at a time
    splits = (Split(1, 1, 1, GLOBAL_BATCH, recompute=how) for how in ("none", "full"))
    alone = min(run.evaluate(split).step_seconds for split in splits)
    return Gain.computed(alone / best_plan.step_seconds, source)


def ddp(case: Case) -> Technique:
    """Every device has all weights and a share of the batch."""
    run = training(case)
    days: Gain | str = ONE
    if run is not None:
        why = "the whole model does not fit a device, or the batch does not divide"
        days = _days(run, plain_data_parallel(run, case.n_devices), why)
    budgets = SPLIT | {"training days": days, "memory": "each device holds all of the state"}
    budgets |= serving.gains(case, WHOLE)
    return Technique("data parallelism (DDP)", "12", budgets, SAME)


def zero(case: Case) -> Technique:
    """Data parallelism with sharded model states: stage 3."""
    memory = days = ONE
    run = training(case)
    if run is not None:
        sizes = dict(param_bytes=4, grad_bytes=4, optimizer_bytes=8)
        state = cost.model_state_bytes(case.n_params, case.n_devices, 3, **sizes)
        activations = case.training_bytes() - ADAM_BYTES * case.n_params
        gain = case.training_bytes() / (state + activations)
        memory = Gain.computed(gain, "efflab.cost.model_state_bytes")
        why = "activations do not fit a device, or the batch does not divide"
        days = _days(run, plain_data_parallel(run, case.n_devices, 3), why)
    budgets = SPLIT | {"memory": memory, "training days": days} | serving.gains(case, GATHERS)
    return Technique("ZeRO-3 (FSDP)", "12", budgets, SAME)


def plan(case: Case) -> Technique:
    """The best tensor x pipeline x data split: least memory for that budget, else the fastest."""
    memory = days = ONE
    run = training(case)
    if run is not None:
        best_plan = best(run, case.n_devices, lean=case.budget == "memory")
        memory = days = "no split of this model fits so many devices"
        if best_plan is not None:
            where = f"{PLANNER}(tp={best_plan.tp},pp={best_plan.pp},dp={best_plan.dp})"
            days = _days(run, best_plan, "", where)
            unsplit = Split(1, 1, 1, GLOBAL_BATCH, recompute=best_plan.recompute)
            memory = Gain.computed(run.memory_bytes(unsplit) / best_plan.memory_bytes, where)
    budgets = SPLIT | {"memory": memory, "training days": days} | serving.gains(case, SPLITS)
    return Technique("tensor x pipeline x data, the best split", "13", budgets, SAME)


def tensor_parallel(case: Case) -> Technique:
    """Weights and heads of one text's layers over all devices of a node (Shoeybi et al. 2019),
    against one device.

    The sums of each layer's outputs over the devices are left out: the gain is a bound.
    """
    why, alone = serving.why_alone(case), serving.Served(case.config)
    budgets = serving.compare(case, alone, why or serving.baseline(case))
    name = "tensor parallelism vs. one device, sums not counted"
    return Technique(name, "13", serving.ELSEWHERE | budgets, SAME)
