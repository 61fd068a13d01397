"""What notebook 15 computes and reads from records: leads, splits, what to change first, a game."""

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from itertools import takewhile
from operator import attrgetter
from statistics import fmean

from efflab.advice.case import BUDGETS
from efflab.advice.ranking import advise
from efflab.base.stored import read_verdicts
from efflab.config import PRESETS, ModelConfig
from efflab.cost import num_params
from efflab.data import DATA_DIR
from efflab.devices import DEVICES
from efflab.distributed import plan_fit
from efflab.distributed.plan import fitting_plans
from efflab.distributed.split import ZERO_STAGES, Plan, Training
from efflab.errors import require
from efflab.estimate import of_mean
from efflab.experiments import budget_game, profile_first
from efflab.experiments.profile_first import PARTS
from efflab.experiments.record import read_record
from efflab.lab import load_claims, outcome_words, tr
from efflab.lab.guesses import calibration, read_guesses
from efflab.lab.outcome import OUTCOMES
from efflab.lab.page import live
from efflab.lab.text import language

A100 = "A100 80GB SXM"

# --- Light structures ------------------------------------------------------------------------

MODELS = ("bert-base", "bert-large", "gpt2", "gpt3-1.3b")


def leads() -> dict[tuple[str, str], float]:
    """(budget, model) -> `lead`."""
    return {(budget, model): lead(model, budget) for budget in BUDGETS for model in MODELS}


@lru_cache(maxsize=32)
def lead(model: str, budget: str) -> float:
    """The best light structure's surest gain over the best other technique's; 1 where none serves.

    With budget "quality" both are shares that stay, and a structure that does not serve keeps 0.
    """
    rows = [row for row in advise(model, A100, budget) if row["serves"]]
    nothing = 0.0 if budget == "quality" else 1.0
    structure, other = (
        max((row["gain_low"] for row in rows if row["structure"] == light), default=nothing)
        for light in (True, False)
    )
    return structure / other


# --- Splits ----------------------------------------------------------------------------------

COUNTS, TEXTS = (8, 64, 512), 512
"""Devices, and the texts of a step that they share where one number has to do."""


@lru_cache(maxsize=1)
def models() -> dict[str, ModelConfig]:
    """From GPT-2 to Table 1 of Narayanan et al. 2021, by size."""
    table = [row for row in plan_fit.published_rows() if row["table"] == 1]
    configs = {name: PRESETS[name] for name in ("gpt2", "gpt2-xl", "gpt3-175b")}
    configs |= {f"{row['params_billions']} B": plan_fit.config_of(row) for row in table}
    return dict(sorted(configs.items(), key=lambda item: num_params(item[1])))


def way(plan: Plan) -> str:
    """What it splits besides the batch: "pipeline" wherever layers are dealt out."""
    if plan.pp > 1:
        return "pipeline"
    return "tensor" if plan.tp > 1 else "data"


@lru_cache(maxsize=512)
def choose(model: str, n_devices: int, texts: int = TEXTS) -> tuple[Plan, float] | None:
    """The fastest plan over all ZeRO stages, and the speed of data parallelism alone over its.

    That is 0 where data parallelism alone does not fit; None where nothing does.
    """
    config = models()[model]
    run = Training(config, DEVICES[A100], texts, min(config.max_len, 2048))
    plans = [plan for stage in ZERO_STAGES for plan in fitting_plans(run, n_devices, stage)]
    if not plans:
        return None
    fastest = min(plans, key=attrgetter("step_seconds"))
    alone = [plan.step_seconds for plan in plans if plan.tp == plan.pp == 1]
    return fastest, fastest.step_seconds / min(alone) if alone else 0.0


def fastest(model: str, n_devices: int, texts: int = TEXTS) -> Plan | None:
    """The fastest plan for a step of `texts`; None where none fits."""
    chosen = choose(model, n_devices, texts)
    return chosen and chosen[0]


def words(plan: Plan | None) -> str:
    """ "4x16x1/3 z1": tensor x pipeline x data, chunks where several, ZeRO's stage where one."""
    if plan is None:
        return "-"
    chunks = f"/{plan.n_chunks}" if plan.n_chunks > 1 else ""
    stage = f" z{plan.zero_stage}" if plan.zero_stage else ""
    return f"{plan.tp}x{plan.pp}x{plan.dp}{chunks}{stage}"


def plans(n_devices: int, texts: int = TEXTS) -> list[tuple[float, Plan]]:
    """(billions of parameters, fastest plan) of every model that fits, the smallest first."""
    pairs = ((num_params(c) / 1e9, fastest(name, n_devices, texts)) for name, c in models().items())
    return [(size, plan) for size, plan in pairs if plan is not None]


def borders(n_devices: int, texts: int = TEXTS) -> tuple[float, float]:
    """(largest size up to which all are data parallel alone, least size from which all have a
    pipeline), in billions of parameters; 0 where the smallest, or the largest, is not so."""
    ways = [(size, way(plan)) for size, plan in plans(n_devices, texts)]
    small = [size for size, _ in takewhile(lambda pair: pair[1] == "data", ways)]
    huge = [size for size, _ in takewhile(lambda pair: pair[1] == "pipeline", ways[::-1])]
    return max(small, default=0.0), min(huge, default=0.0)


# --- What to change first --------------------------------------------------------------------


@lru_cache(maxsize=1)
def first_runs() -> list[dict]:
    """The recorded runs of `profile_first`."""
    return read_record(profile_first.NAME)["runs"]


def first_of(width: int, n_tokens: int) -> dict:
    """A recorded shape over its processes: `shares` and `time` by part with intervals, `flops`.

    `choices`: who -> {part: in how many processes it was chosen}; `rival`: mean.
    """
    runs = [r for r in first_runs() if (r["width"], r["n_tokens"]) == (width, n_tokens)]
    shape = {k: {p: of_mean([r[k][p] for r in runs]) for p in PARTS} for k in ("shares", "time")}
    choices = {who: Counter(run["first"][who] for run in runs) for who in ("profile", "count")}
    rival = fmean(run["rival"] for run in runs)
    return shape | dict(flops=runs[0]["flops"], choices=choices, rival=rival)


# --- The budget game -------------------------------------------------------------------------


def play(moves: Mapping) -> dict:
    """The score of a reader's moves, in which lists may stand for tuples."""
    known = sorted(budget_game.Moves.__dataclass_fields__)
    unknown = sorted(set(moves) - set(known))
    require(not unknown, "moves", unknown, "one of {options}", options=", ".join(known))
    own = {name: tuple(move) if isinstance(move, list) else move for name, move in moves.items()}
    return budget_game.play(**own)


SHOWN = {"and four windows, 2 % of the neurons": "GPTQ, bits where they count, 4 windows, 2% cut"}


def entries(mine: dict | None = None) -> list[dict]:
    """Our recorded entries (by names that stand alone) and the reader's, the best first."""
    ours = [run | dict(kind="recorded") for run in budget_game.entries()]
    ours = [run | dict(entry=SHOWN.get(run["entry"], run["entry"])) for run in ours]
    yours = [] if mine is None else [mine | dict(entry="yours", kind="measured")]
    return sorted(ours + yours, key=budget_game.rank)


def game_rows(mine: dict | None = None) -> list[dict]:
    """The game's board."""
    return [
        {
            "place": place,
            "entry": entry["entry"],
            "MB": entry["n_bytes"] / 1e6,
            "fits": entry["fits"],
            "bits per byte": entry["bits"],
            "time / as shipped": entry["time"],
            "FLOPs (G)": entry["flops"] / 1e9,
            "kind": entry["kind"],
        }
        for place, entry in enumerate(entries(mine), start=1)
    ]


# --- The end ---------------------------------------------------------------------------------

NOT_YET = "not judged yet"


def outcomes() -> dict[str, str]:
    """Claim -> the outcome that the built notebooks stored, in the order of the article."""
    notebooks = read_verdicts(DATA_DIR / "verdicts.json").values()
    stored = {verdict["claim"]: verdict["outcome"] for own in notebooks for verdict in own}
    return {claim: stored.get(claim, NOT_YET) for claim in load_claims()}


def in_words(outcome: str) -> str:
    """An outcome in the language in use."""
    return outcome_words(outcome, language()) if outcome in OUTCOMES else tr(NOT_YET)


def ledger_rows() -> list[dict]:
    """A line for each claim of the article."""
    known = outcomes()
    return [
        {
            "claim": name,
            "section": claim["section"],
            "outcome": in_words(known[name]),
            "notebook": claim["notebook"],
        }
        for name, claim in load_claims().items()
    ]


def guesses() -> list[dict]:
    """The reader's guesses on this machine; none in a build, whose pages are everybody's."""
    return read_guesses() if live() else []


def calibration_row(guesses: list[dict]) -> dict:
    """How good guesses are, of which there has to be one at least."""
    summary = calibration(guesses)
    return {
        "guesses": summary["guesses"],
        "within a factor of 2 (%)": 100 * summary["within_2"],
        "typical factor off": summary["typical"],
        "too high (%)": summary["too_high"] and 100 * summary["too_high"],
    }
