"""Verdicts judged again from their evidence, by the rules that stand here.

A verdict is a pure function of its evidence, so that a stored one can be checked, put into Chinese,
and asked what would turn it.
"""

import importlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import efflab_rooms
from efflab.errors import require
from efflab.lab.text import read_texts
from efflab.lab.verdict import Evidence, Outcome, by_id
from efflab.publishing.catalog import ROOT, catalog


def room(claim: str, root: Path = ROOT) -> str | None:
    """The room that judges a claim; None while its notebook is not written."""
    entries = catalog(root / "notebooks").values()
    return next((e["name"][3:] for e in entries if claim in e["claims"]), None)


def rule(claim: str, root: Path = ROOT) -> Callable[..., Outcome]:
    """The claim's function, `efflab_rooms.<room>.verdicts.<claim_id>`.

    A claim whose notebook is not written is a `ValueError`.
    """
    name = room(claim, root)
    require(name is not None, "claim", claim, "one whose notebook is written")
    module = importlib.import_module(f"efflab_rooms.{name}.verdicts")
    return getattr(module, claim.replace("-", "_"))


def chinese_texts(claim: str, root: Path = ROOT) -> dict[str, str]:
    """The Chinese of the texts of a claim's room."""
    return read_texts(efflab_rooms.texts(str(room(claim, root))))


def judge(claim: str, evidence: Iterable[Evidence | Mapping], root: Path = ROOT) -> Outcome:
    """What the claim comes to on this evidence; a `ValueError` if its rule cannot judge it."""
    function = rule(claim, root)
    try:
        return function(list(by_id(evidence).values()))
    except Exception as error:  # a rule is written for its own figures, and these are a stranger's
        reason = f"{type(error).__name__}: {error}"[:200]
        raise ValueError(
            f"{claim}: its figures are not those that its rule asks for ({reason})"
        ) from error


def turning(claim: str, ours: Mapping, theirs: Mapping, root: Path = ROOT) -> list[str]:
    """The ids of the figures on which two records of a claim part.

    Each of them alone, taken from the other record, turns one outcome into the other. Where no
    single one does, the first, on which a verdict turns.
    """
    mine, others = (by_id(record["figures"]) for record in (ours, theirs))
    both = [key for key in mine if key in others]

    def turns(key: str) -> bool:
        swapped = (mine | {key: others[key]}, theirs), (others | {key: mine[key]}, ours)
        return any(_word(claim, e.values(), root) == other["outcome"] for e, other in swapped)

    return [key for key in both if turns(key)] or list(mine)[:1]


def _word(claim: str, evidence: Iterable[Evidence], root: Path) -> str | None:
    try:
        return judge(claim, evidence, root).word
    except ValueError:
        return None
