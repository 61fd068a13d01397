"""`advise`: the techniques of all chapters, ranked by what they gain on the budget that binds."""

from efflab.advice import acceleration, compression, distributed, structure
from efflab.advice.case import Case
from efflab.advice.technique import Gain, Loss, Technique

CHAPTERS = (structure, acceleration, compression, distributed)
NEGLIGIBLE = 1.0
"""Per cent of the quality that a technique may take, with its interval, and count as keeping it."""
UNKNOWN = "what it takes from the quality was not recorded"


def techniques(case: Case) -> list[Technique]:
    """What is known of each in this case, in the order of chapters."""
    return [technique for chapter in CHAPTERS for technique in chapter.techniques(case)]


def advise(
    model: str,
    device: str,
    budget: str,
    *,
    n_devices: int = 1,
    seq_len: int | None = None,
) -> list[dict]:
    """Rows, the most useful first; what does not serve the budget stands last, with why.

    Each has `technique`, `serves`, `gain_low` and `gain_high` (times less of the budget; None where
    it does not serve), `kind`, `source`, `why`, `notebook`, whether it is a `structure`, and its
    cost in quality: `lost` (per cent of `metric`, with `lost_low` and `lost_high`), `lost_kind`,
    `lost_source`. With budget "quality" the order is by what is lost, least first, and a gain is
    the share of the quality that stays. Names that are unknown are a `ValueError`, as for `Case`.

    >>> rows = advise("bert-base", "A100 80GB SXM", "checkpoint")
    >>> rows[0]["technique"], round(rows[0]["gain_low"], 1)
    ('ALBERT: shared weights, embedding of width 128', 9.2)
    """
    case = Case(model, device, budget, n_devices, seq_len)
    rows = [row(technique, budget) for technique in techniques(case)]
    return sorted(rows, key=_order)


def _order(found: dict) -> tuple:
    """The surest gain first; of equal ones what takes less of the quality."""
    lost = float("inf") if found["lost"] is None else found["lost"]
    gain = found["gain_low"] or 0.0
    return not found["serves"], -round(gain, 6), lost


def row(technique: Technique, budget: str) -> dict:
    """One technique as `advise` gives it."""
    answer: Gain | str
    answer = remaining_quality(technique.loss) if budget == "quality" else technique.budgets[budget]
    serves = isinstance(answer, Gain) and (budget == "quality" or answer.high > 1)
    if isinstance(answer, Gain) and not serves:
        answer = "it needs more here, not less"
    row: dict = dict(technique=technique.name, serves=serves)
    if isinstance(answer, Gain):
        row |= dict(gain_low=answer.low, gain_high=answer.high, kind=answer.kind)
        row |= dict(source=answer.source, why="")
    else:
        row |= dict(gain_low=None, gain_high=None, kind=None, source=None, why=answer)
    row |= dict(notebook=technique.notebook, structure=technique.structural)
    return row | _loss(technique.loss)


def remaining_quality(loss: Loss | None) -> Gain | str:
    """The share of the quality that stays, or why that is too little."""
    if loss is None:
        return UNKNOWN
    if loss.most > NEGLIGIBLE:
        return "it takes over 1 % of the quality, without retraining"
    ends = sorted(1 - x / 100 for x in (loss.most, loss.value if loss.low is None else loss.low))
    return Gain(*ends, loss.kind, loss.source)


def _loss(loss: Loss | None) -> dict:
    names = ("value", "low", "high", "metric", "kind", "source")
    labels = ("lost", "lost_low", "lost_high", "metric", "lost_kind", "lost_source")
    values = [None if loss is None else getattr(loss, name) for name in names]
    return dict(zip(labels, values, strict=True))
