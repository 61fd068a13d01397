"""The numbers behind advice: the board, the experiments' records, stored verdicts, papers."""

from functools import lru_cache

from efflab.advice.case import CPUS
from efflab.advice.technique import Gain, Loss
from efflab.base.places import DATA_DIR
from efflab.base.published import read_published
from efflab.base.significant import significant
from efflab.base.stored import figures_of, read_board, read_verdicts
from efflab.base.words import Words
from efflab.config import PRESETS
from efflab.cost import num_params
from efflab.errors import require_one_of
from efflab.experiments.record import machines, read_record

ENGINES = "data/experiments/int8-engines.json"
BITS, MRR = "bits per byte (stdlib-gpt)", "retrieval MRR (MiniLM-L6)"
METRICS = {"stdlib-gpt": (BITS, 1), "MiniLM-L6": (MRR, -1)}
"""Model on the board -> (name of its quality, sign of a loss in it)."""


def describe(model: str) -> str:
    """A model of the board with its size: "stdlib-gpt, 3 M parameters"."""
    millions = num_params(PRESETS[model.lower()]) / 1e6
    return Words("{model}, {n} M parameters", model=model, n=significant(millions, 2))


@lru_cache(maxsize=1)
def _board() -> list[dict]:
    return read_board(DATA_DIR / "board.json")


@lru_cache(maxsize=1)
def _verdicts() -> dict[str, list[dict]]:
    return read_verdicts(DATA_DIR / "verdicts.json")


@lru_cache(maxsize=1)
def _engine_blocks() -> list[dict]:
    return [read_record("int8-engines", name) for name in machines("int8-engines")]


@lru_cache(maxsize=1)
def _gptq_runs() -> list[dict]:
    return read_record("gptq-quality")["runs"]


def board_point(technique: str, model: str) -> dict:
    """A technique's recorded point on a model's board."""
    points = {p["technique"]: p for p in _board() if p["model"] == model}
    require_one_of("technique", technique, points)
    return points[technique]


def board_loss(technique: str, model: str = "stdlib-gpt") -> Loss:
    """The technique's loss of quality on the board, in per cent of the baseline's."""
    metric, sign = METRICS[model]
    point, base = board_point(technique, model), board_point("baseline", model)["quality"]
    ends = sorted(100 * sign * (point[name] / base - 1) for name in ("quality_low", "quality_high"))
    value = 100 * sign * (point["quality"] / base - 1)
    return Loss(value, metric, "recorded", "data/board.json", *ends, describe(model))


def engine_row(engine: str, device: str) -> dict:
    """The engine's recorded run on the last machine of that kind."""
    require_one_of("device", device, CPUS)
    blocks = [b for b in _engine_blocks() if bool(b["features"]["vnni"]) == CPUS[device]]
    rows = {run["engine"]: run for run in blocks[-1]["runs"]}
    require_one_of("engine", engine, rows)
    return rows[engine]


def engine_loss(engine: str, device: str) -> Loss:
    """An engine's loss of MiniLM's retrieval on that kind of CPU, in per cent."""
    row, exact = engine_row(engine, device), engine_row("fp32 eager", device)
    value = 100 * (1 - row["mrr"] / exact["mrr"])
    return Loss(value, MRR, "recorded", ENGINES, model=describe("MiniLM-L6"))


def gptq_loss(bits: int, group_size: int | None) -> Loss:
    """GPTQ's loss on `stdlib-gpt` at that grid, in per cent of its bits per byte."""
    runs = _gptq_runs()
    (full,) = [r for r in runs if r["part"] == "full"]
    case = dict(part="language", bits=bits, group_size=group_size, method="gptq")
    (run,) = [r for r in runs if case.items() <= r.items()]
    value = 100 * (run["bits_per_byte"] / full["bits_per_byte"] - 1)
    where = "data/experiments/gptq-quality.json"
    return Loss(value, BITS, "recorded", where, model=describe("stdlib-gpt"))


def gqa_loss(model: str) -> Loss:
    """Average score that T5-XXL loses with fewer heads of keys (Ainslie et al. 2023, Table 1)."""
    scores = {row["model"]: row["average_score"] for row in read_published("gqa")}
    lost = 100 * (1 - scores[model] / scores["MHA-XXL"])
    metric, where = "average score (T5-XXL's seven tasks)", "data/published/gqa.csv"
    return Loss(lost, metric, "published", where, model="T5-XXL, 11 B parameters")


def evidence(notebook: str, claim: str, key: str) -> dict | None:
    """The evidence with id `key` that the built notebook stored for a claim; None before that."""
    records = [v for v in _verdicts().get(notebook, []) if v["claim"] == claim]
    if not records:
        return None
    figures = figures_of(records[0])
    require_one_of("key", key, figures)
    return figures[key]


def mixed_training_gain(device: str) -> Gain | None:
    """Published speedup of training by mixed precision over the device's default; None if there is
    none for the device."""
    family = device.split()[0]
    rows = [r for r in read_published("amp") if r["device"].startswith(f"{family} ")]
    rows = [r for r in rows if "inference" not in r["task"]]
    speeds = [r["mixed_per_second"] / r["baseline_per_second"] for r in rows]
    if not speeds:
        return None
    models = " and ".join(dict.fromkeys(row["model"] for row in rows))
    return Gain(min(speeds), max(speeds), "published", "data/published/amp.csv", models)


def albert_row(layers: int, hidden: int, strategy: str) -> dict | None:
    """The row of ALBERT's Tables 1 and 2 of that shape; None if there is none."""
    shape = dict(table="1 and 2", layers=layers, hidden=hidden, strategy=strategy)
    return next((r for r in read_published("albert") if shape.items() <= r.items()), None)
