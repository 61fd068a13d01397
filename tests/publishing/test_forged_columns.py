"""Columns forged leaf by leaf, and files meant to cost much: all refused, and soon."""

import json
import math
import time
from functools import cache

import pytest
from ledgers import BIG, HERE, column, figure

from efflab.experiments import registration
from efflab.lab import KINDS
from efflab.publishing import column as columns
from efflab.publishing import judging
from efflab.publishing.catalog import ROOT
from efflab.publishing.column import parse
from efflab.publishing.ledger import verdicts


def real(*records):
    """A column of these records as another machine would send it."""
    machine = HERE | dict(features=column().machine["features"])
    return json.loads(column(*records, machine=machine).text())


@cache
def longest():
    """CPU seconds that a refusal may take: one, or on a slow CPU what a megabyte of a
    real column takes. What is read without care takes its length squared."""
    content = json.dumps(real(*verdicts().values())).encode()
    start = time.process_time()
    parse(content)
    return max(1, (time.process_time() - start) * columns.MAX_BYTES / len(content))


@pytest.fixture(scope="module", autouse=True)
def rooms():
    """Every room imported: what a refusal takes is timed, not what loading torch takes."""
    for claim in verdicts():
        judging.rule(claim)
    longest()


@pytest.fixture
def here(monkeypatch):
    """What stands here, read once: `parsed` is asked thousands of times."""
    known, found = columns.claims(ROOT), verdicts()
    monkeypatch.setattr(columns, "claims", lambda root: known)
    monkeypatch.setattr(columns, "verdicts", lambda root: found)
    monkeypatch.setattr(judging, "catalog", cache(judging.catalog))
    monkeypatch.setattr(registration, "blocks", cache(registration.blocks))
    return found


def leaves(value, path=()):
    """(path, value) of all that is neither object nor list."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in inner:
        if isinstance(item, dict | list):
            yield from leaves(item, (*path, key))
        else:
            yield (*path, key), item


def refusal(body):
    """The one line in which a column is refused, and soon; None where it is taken."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    start = time.process_time()
    try:
        parse(content)
    except ValueError as error:
        said = str(error)
    else:
        return None
    seconds = time.process_time() - start
    assert seconds < longest()
    assert "\n" not in said
    assert len(said) < 1000
    return said


WRONG = (
    *(None, True, math.nan, math.inf, 10**400, -1e31),
    *("x\n", "x" * 90_000, [1], {"x": 1}, [[]] * 99),
)
FREE = ("machine", "features")
"""Truth values, either of which a machine may have."""


@pytest.mark.parametrize("claim", verdicts())
def test_no_leaf_of_a_real_column_may_be_another_thing(claim, here):
    """Each leaf in turn, by three wrong values of eleven."""
    body = real(here[claim])
    assert refusal(body) is None
    for i, (path, value) in enumerate(leaves(body)):
        where = body
        for key in path[:-1]:
            where = where[key]
        for wrong in (WRONG[(3 * i + j) % len(WRONG)] for j in range(3)):
            if wrong is value or (path[:2] == FREE and isinstance(wrong, bool)):
                continue
            where[path[-1]] = wrong
            assert refusal(body), (path, wrong)
        where[path[-1]] = value


def with_figures(record, place, figures):
    """The record with these figures in place of one, given by its part's and its own number."""
    part, number = place
    parts = [dict(one) for one in record["parts"]]
    before, after = (
        parts[part]["figures"][slice(*ends)] for ends in ((number,), (number + 1, None))
    )
    parts[part]["figures"] = [*before, *figures, *after]
    return record | dict(parts=parts)


@pytest.mark.parametrize("claim", verdicts())
def test_no_figure_of_a_real_column_may_change_its_kind_name_or_interval(claim, here):
    body = real(here[claim])
    places = [(i, j) for i, p in enumerate(here[claim]["parts"]) for j in range(len(p["figures"]))]
    for place in places:
        one = here[claim]["parts"][place[0]]["figures"][place[1]]
        value, low = one["value"], one["low"]
        forged = [one | dict(kind=kind) for kind in KINDS if kind != one["kind"]]
        forged += [one | dict(name=one["name"] + " "), one | dict(unit="apples")]
        less, more = value - abs(value) - 1, value + abs(value) + 1
        forged += [one | dict(low=a, high=b) for a, b in ((more, more), (less, less), (more, less))]
        end = value if low is None else None  # an interval where there is none, none where one is
        forged += [one | dict(low=end, high=end)]
        if one["kind"] == "published":
            forged += [one | dict(value=value + 1)]
        for others in ([], [one, one], *([other] for other in forged)):
            record = with_figures(here[claim], place, others)
            assert refusal(body | dict(verdicts=[record])), (one, others)


def hostile():
    """Files of nearly 1 MB, each of which costs much or says much where it is read without care."""
    keys = ", ".join(f'"{i:05}": 1' for i in range(70_000))
    yield "a key twice", "{" + keys + ', "00007": 2}'
    yield "no key twice", "{" + keys + "}"
    yield "a long text", '{"efflab": "' + "x" * 900_000 + '"}'
    yield "a long key", '{"' + "x" * 900_000 + '": 1}'
    yield "digits", '{"schema": ' + "9" * 900_000 + "}"
    yield "decimals", '{"schema": 0.' + "9" * 900_000 + "}"
    yield "minus signs", '{"schema": ' + "-" * 5000 + "1}"
    yield "deep lists", "[" * 450_000 + "]" * 450_000
    yield "deep objects", '{"a":' * 100_000 + "1" + "}" * 100_000
    yield "not so deep", '{"schema": ' + "[" * 60 + "]" * 60 + "}"
    yield "a long list", "[" + "1," * 400_000 + "1]"
    yield "bytes", "\ufeff{}"
    yield "half a character", '{"efflab": "\\ud800"}'
    body = real()
    for what in ([1] * 300_000, [{}] * 200_000, ["x" * 900_000]):
        yield "verdicts", json.dumps(body | dict(verdicts=what))
    part = BIG["parts"][0] | dict(figures=[figure(f"{i}", 1) for i in range(60)])
    full = [BIG | dict(claim=f"a{i}", parts=[part] * 2) for i in range(50)]
    yield "all in form", json.dumps(body | dict(verdicts=full))


@pytest.mark.parametrize(("name", "text"), list(hostile()), ids=lambda x: x if len(x) < 20 else "")
def test_a_hostile_file_is_refused_soon_and_in_a_line(name, text, here):
    assert len(text) < columns.MAX_BYTES
    assert refusal(text.encode()), name
