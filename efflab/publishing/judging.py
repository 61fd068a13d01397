"""Judges verdicts again from their stored evidence, by the rules in this repository.

A verdict is a pure function of its evidence, so that a stored one can be checked, translated, and
compared part by part.
"""

import importlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import efflab_rooms
from efflab.base.toml_files import read_toml
from efflab.errors import require
from efflab.lab.evidence import Evidence, by_id
from efflab.lab.outcome import Outcome
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
    return read_toml(efflab_rooms.texts(str(room(claim, root))))


def judge(claim: str, evidence: Iterable[Evidence | Mapping], root: Path = ROOT) -> Outcome:
    """The claim's outcome on this evidence; a `ValueError` if its rule cannot judge it."""
    function = rule(claim, root)
    try:
        return function(list(by_id(evidence).values()))
    except Exception as error:  # others' figures may break a rule in any way
        reason = f"{type(error).__name__}: {error}"[:200]
        told = f"{claim}: its figures are not those that its rule asks for ({reason})"
        raise ValueError(told) from error
