"""What notebook 15 computes, measures and reads from records: leads, splits, a profile, a game."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import takewhile
from operator import attrgetter
from typing import NamedTuple

import torch

from efflab import bench, profile
from efflab.advice.case import BUDGETS
from efflab.advice.ranking import advise
from efflab.base.stored import read_verdicts
from efflab.bench import Comparison
from efflab.compression.pruning import prune_ffn
from efflab.config import PRESETS, ModelConfig
from efflab.cost import num_params
from efflab.data import DATA_DIR
from efflab.devices import DEVICES
from efflab.distributed import plan_fit
from efflab.distributed.plan import fitting_plans
from efflab.distributed.split import ZERO_STAGES, Plan, Training
from efflab.errors import require
from efflab.experiments import budget_game
from efflab.lab import load_claims, outcome_words, tr
from efflab.lab.guesses import calibration, read_guesses
from efflab.lab.outcome import OUTCOMES
from efflab.lab.page import live
from efflab.lab.text import language
from efflab.model import Transformer
from efflab.structure.window import computed_pairs, with_windows

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


# --- A profile -------------------------------------------------------------------------------

WINDOW, REMOVED = 64, 0.5
SHAPES = {
    "192": replace(PRESETS["stdlib-gpt"], max_len=2048),
    "512": ModelConfig(2, 8, 512, 2048, 2048, 512, causal=True),
    "768": ModelConfig(2, 12, 768, 3072, 2048, 512, causal=True),
}
"""`stdlib-gpt`'s shape with more positions, and two wider ones, by width."""
CASES = {"192-128": 31, "512-128": 15, "512-256": 11, "768-128": 11, "192-2048": 7}
"""Width and tokens -> repeats: the profile points well to one side of the crossing in each."""
CROSSING = "192-384"
REPEATS = CASES | {CROSSING: 11}


class Shares(NamedTuple):
    """Shares (0..1) of a pass's time at one length: attention's own product, its maps, the rest."""

    scores: float
    projections: float
    ffn: float
    other: float


def tokens(case: str) -> int:
    """The length of a case such as "192-128"."""
    return int(case.split("-")[1])


@lru_cache(maxsize=3)
def model(shape: str) -> Transformer:
    """A model of that shape; its weights do not matter for time."""
    torch.manual_seed(0)
    return Transformer(SHAPES[shape]).eval()


@lru_cache(maxsize=3)
def choices(shape: str) -> dict[str, Transformer]:
    """The two changes that a reader may make first."""
    plain, config = model(shape), SHAPES[shape]
    half = range(round(REMOVED * config.d_ff))
    neurons = dict.fromkeys(range(config.n_layer), half)
    return {"windows": with_windows(plain, WINDOW), "neurons": prune_ffn(plain, neurons)}


@torch.no_grad()
@bench.one_thread()
def shares(case: str) -> Shares:
    """Measured by PyTorch Profiler."""
    net, ids = model(case.split("-")[0]), torch.zeros(1, tokens(case), dtype=torch.long)
    parts = {
        "attention": [layer.attention for layer in net.layers],
        "ffn": [layer.ffn for layer in net.layers],
    }
    for _ in range(2):
        net(ids)
    run = profile.profile(lambda: net(ids), parts)
    scores = sum(span.seconds for span in run.spans if "scaled_dot_product" in span.name)
    seconds = run.part_seconds()
    total, attention, ffn = sum(seconds.values()), seconds["attention"], seconds["ffn"]
    times = (scores, attention - scores, ffn, total - attention - ffn)
    return Shares(*(time / total for time in times))


def savings(shares: Shares, seq_len: int) -> dict[str, float]:
    """The share of the time that each choice would save, if time went with what it leaves out."""
    pairs = computed_pairs(seq_len, WINDOW, causal=True) / seq_len**2
    return {"windows": shares.scores * (1 - pairs), "neurons": shares.ffn * REMOVED}


def choice(shares: Shares, seq_len: int) -> str:
    """The choice that the profile points to."""
    expected = savings(shares, seq_len)
    return max(expected, key=expected.__getitem__)


@lru_cache(maxsize=8)
def measurement(case: str) -> tuple[Shares, Comparison]:
    """The profile of a case, and both choices timed beside the unchanged model."""
    shape, ids = case.split("-")[0], torch.zeros(1, tokens(case), dtype=torch.long)
    calls = {name: lambda net=net: net(ids) for name, net in choices(shape).items()}
    with torch.no_grad(), bench.one_thread():
        times = bench.compare(lambda: model(shape)(ids), calls, 2, REPEATS[case])
    return shares(case), times


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
