"""A verdict can lose: each is a pure function of its figures, and none is typed into the source."""

import ast
import importlib
import json
import math

import pytest

from efflab.base.stored import figures_of
from efflab.lab import Outcome, load_claims
from efflab.publishing import build
from efflab.publishing.catalog import ROOT, catalog, sources

CLAIMS = [(claim, number) for number, e in catalog().items() for claim in e["claims"]]
STORED = json.loads((ROOT / "data" / "verdicts.json").read_text(encoding="utf-8"))


def function(claim, number):
    """The verdict function of a claim, in the room of its notebook."""
    room = catalog()[number]["name"][3:]
    module = importlib.import_module(f"efflab_rooms.{room}.verdicts")
    return getattr(module, claim.replace("-", "_"))


def test_every_claim_is_judged_in_its_own_notebook():
    claims = load_claims()
    assert len(dict(CLAIMS)) == len(CLAIMS)  # once a claim
    for claim, number in CLAIMS:
        assert claims[claim]["notebook"] == number


@pytest.mark.parametrize(("claim", "number"), CLAIMS)
def test_what_is_stored_follows_from_its_figures(claim, number):
    (record,) = [v for v in STORED[number] if v["claim"] == claim]
    again = function(claim, number)(figures_of(record).values())
    assert isinstance(again, Outcome)
    assert again.record(claim) == record


NO_NUMBERS = (math.nan, math.inf, -math.inf, 10**400, None, True, "1", [1.0])


@pytest.mark.parametrize(("claim", "number"), CLAIMS)
def test_no_verdict_is_found_on_what_is_no_number(claim, number):
    """Each number of the evidence in turn: compared with NaN, every rule would go on unseen."""
    (record,) = [v for v in STORED[number] if v["claim"] == claim]
    judge, figures = function(claim, number), list(figures_of(record).values())
    for place, figure in enumerate(figures):
        for key in ("value", "low", "high"):
            for wrong in NO_NUMBERS:
                if figure[key] == wrong:  # an end that was not sampled
                    continue
                changed = [*figures[:place], figure | {key: wrong}, *figures[place + 1 :]]
                with pytest.raises((TypeError, ValueError), match=r"value|low"):
                    judge(changed)


def verdict_calls(number):
    """(claim, second argument) of each `verdict(...)` in a notebook's source."""
    for cell in build.read_source(sources()[number]).cells:
        if cell.cell_type != "code":
            continue
        for node in ast.walk(ast.parse(cell.source)):
            name = getattr(node, "func", None)
            name = getattr(name, "attr", None) or getattr(name, "id", None)
            if isinstance(node, ast.Call) and name == "verdict":
                yield ast.literal_eval(node.args[0]), node.args[1]


@pytest.mark.parametrize("number", sources())
def test_a_notebook_hands_over_what_its_function_gives(number):
    """`verdict("claim-id", verdicts.claim_id(figures))`, and nothing else."""
    for claim, outcome in verdict_calls(number):
        assert isinstance(outcome, ast.Call), claim
        assert ast.unparse(outcome.func) == f"verdicts.{claim.replace('-', '_')}"
