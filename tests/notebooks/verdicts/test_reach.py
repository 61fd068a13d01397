"""Every part of every claim can come out in more than one way, by what a run may yield.

Each file beside this one has `drives()`: (claim, evidence) pairs, made by the functions that make
the notebook's evidence, from numbers that a run, a record or a table may hold.
"""

import importlib.util
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

from efflab.lab import load_claims
from efflab.publishing.judging import judge

HERE = Path(__file__).parent
PARTS = [(claim, part["id"]) for claim, c in load_claims().items() for part in c["parts"]]


def load(path):
    spec = importlib.util.spec_from_file_location(f"reach_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def outcomes():
    """{(claim, part): the outcomes that the drives come to}."""
    words = defaultdict(set)
    for path in sorted({*HERE.glob("test_*.py")} - {Path(__file__)}):
        for claim, evidence in load(path).drives():
            for part in judge(claim, evidence).parts:
                words[claim, part.id].add(part.outcome)
    return words


@pytest.mark.parametrize(("claim", "part"), PARTS)
def test_a_part_can_come_out_in_two_ways(claim, part):
    assert len(outcomes()[claim, part]) >= 2, outcomes()[claim, part]
