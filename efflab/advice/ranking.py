"""`advise`: the techniques of all chapters, ranked by their gain on the limiting budget."""

from collections.abc import Mapping
from pathlib import Path

from efflab.advice import acceleration, compression, distributed, structure
from efflab.advice.case import Case
from efflab.advice.technique import Gain, Loss, Technique
from efflab.config import ModelConfig
from efflab.devices import Device

CHAPTERS = (structure, acceleration, compression, distributed)
NEGLIGIBLE = 1.0
"""Largest loss of quality, in per cent and with its interval, that counts as keeping it."""
UNKNOWN = "its cost in quality was not recorded"


def advise(
    model: str | Path | Mapping | ModelConfig,
    device: str | Device,
    budget: str,
    *,
    n_devices: int = 1,
    seq_len: int | None = None,
) -> list[dict]:
    """Rows, the most useful first; those that do not help the budget come last, with the reason.

    Each has `technique`, `serves`, `gain_low` and `gain_high` (times less of the budget if `unit`
    is "x", else what there is where there was nothing; None if it does not help), `kind`,
    `source`, `why`, `notebook`, whether it is a `structure`, and its cost in quality: `lost` (per
    cent of `metric`, with `lost_low` and `lost_high`), `lost_kind`, `lost_source`. `gain_model` and
    `lost_model` are the models that were measured or published, None for a formula. With budget
    "quality" the order is by loss, least first, and a gain is the share of the quality that is
    kept. Unknown names are a `ValueError`, as for `Case`.

    >>> rows = advise("bert-base", "A100 80GB SXM", "checkpoint")
    >>> rows[0]["technique"], round(rows[0]["gain_low"], 1)
    ('ALBERT: shared weights, embedding of width 128', 9.3)
    """
    return rank(Case(model, device, budget, n_devices, seq_len))


def rank(case: Case) -> list[dict]:
    """The rows of `advise` for a case."""
    techniques = (technique for chapter in CHAPTERS for technique in chapter.techniques(case))
    return sorted((row(technique, case.budget) for technique in techniques), key=_order)


def whole(case: Case) -> dict:
    """What `efflab advise --json` says: what was asked, and the rows."""
    asked = dict(model=case.name, device=case.device_name, budget=case.budget)
    asked |= dict(n_devices=case.n_devices, seq_len=case.seq_len)
    return dict(asked=asked, advice=rank(case))


def _order(row: dict) -> tuple:
    """Sort key: the largest lower bound of the gain first, ties by less loss of quality."""
    lost = float("inf") if row["lost"] is None else row["lost"]
    gain = row["gain_low"] or 0.0
    return not row["serves"], -round(gain, 6), lost


def row(technique: Technique, budget: str) -> dict:
    """One technique as a row of `advise`."""
    answer = remaining_quality(technique.loss) if budget == "quality" else technique.budgets[budget]
    serves = isinstance(answer, Gain) and (budget == "quality" or answer.high > 1)
    if isinstance(answer, Gain) and not serves:
        answer = "it needs more here, not less" if answer.low < 1 else "it needs as much here"
    gain, why = (answer, "") if isinstance(answer, Gain) else (None, answer)
    about = dict(notebook=technique.notebook, structure=technique.structural)
    row = dict(technique=technique.name, serves=serves) | _columns(gain, GAIN)
    return row | dict(why=why) | about | _columns(technique.loss, LOSS)


GAIN = dict(gain_low="low", gain_high="high", unit="unit", kind="kind", source="source")
GAIN |= dict(gain_model="model")
LOSS = dict(lost="value", lost_low="low", lost_high="high", metric="metric", lost_kind="kind")
LOSS |= dict(lost_source="source", lost_model="model")
"""A row's columns -> attributes of a `Gain`, of a `Loss`."""


def _columns(value: Gain | Loss | None, names: Mapping[str, str]) -> dict:
    return {column: value and getattr(value, name) for column, name in names.items()}


def remaining_quality(loss: Loss | None) -> Gain | str:
    """The share of the quality that is kept, or why it is not enough."""
    if loss is None:
        return UNKNOWN
    if loss.most > NEGLIGIBLE:
        return "it costs more than 1% of the quality, without retraining"
    ends = sorted(1 - x / 100 for x in (loss.most, loss.value if loss.low is None else loss.low))
    return Gain(*ends, loss.kind, loss.source)
