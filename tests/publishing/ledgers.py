"""A toy ledger for tests: three claims, the rules of two, and columns of machines."""

import json

from efflab.lab import Outcome, by_id
from efflab.publishing.column import Column

CLAIMS = """\
[big]
section = "1.1"
notebook = "90"
kind = "measured"
short = "A | B"
claim.en = "A or B, told at length."
claim.zh = "甲或乙。"

[small]
section = "1.2"
notebook = "90"
kind = "computed"
claim.en = "C."
claim.zh = "丙。"

[later]
section = "2"
notebook = "91"
kind = "computed"
claim.en = "D."
claim.zh = "丁。"
"""
CATALOG = """\
["90"]
name = "90_toy"
title = { en = "A toy", zh = "玩具" }
minutes = 5
finds.en = "that it works"
finds.zh = "它能用"
claims = ["big", "small"]
"""
CHINESE = {
    "below one": "小于一",
    "n > 9": "n 大于 9",
    "too little": "太少",
    "over one": "大于一",
    "removed": "移除",
    "bits": "比特",
    "printed": "印出的",
}
HERE = dict(cpu="Here", features=None, threads=2)
THERE = dict(
    cpu="There", features=dict.fromkeys(("avx2", "avx512", "vnni", "amx", "bf16"), False), threads=1
)


def big(evidence):
    """Over 50 % has to be removed; on condition where there are over 1,000 tokens."""
    found = by_id(evidence)
    if found["removed"].value <= 50:
        return Outcome(False, evidence, rule="below one", reason="too little")
    condition = "n > 9" if found["tokens"].value > 1000 else ""
    return Outcome(True, evidence, rule="below one", condition=condition)


def small(evidence):
    """One bit at most."""
    if by_id(evidence)["bits"].value > 1:
        return Outcome(False, evidence, rule="below one", reason="over one")
    return Outcome(True, evidence, rule="below one")


RULES = {"big": big, "small": small}


def rule(claim, root):
    if claim not in RULES:
        raise ValueError(f"claim={claim!r}: expected one whose notebook is written")
    return RULES[claim]


def figure(id, value, unit="", kind="measured", low=None, high=None):
    """What a record stores of a number whose name is its id."""
    return dict(id=id, name=id, value=value, unit=unit, kind=kind, low=low, high=high)


def record(claim, outcome, *figures, condition="", reason=""):
    holds = {"holds": True, "holds if": True, "does not hold": False, "undecided": None}[outcome]
    texts = dict(condition=condition, rule="below one", reason=reason)
    head = dict(form=2, claim=claim, holds=holds, outcome=outcome)
    return head | texts | dict(figures=list(figures))


SMALL = record(
    "small",
    "does not hold",
    figure("bits", 3.5, kind="computed"),
    figure("printed", 7, kind="published"),
    reason="over one",
)
BIG = record(
    "big",
    "holds if",
    figure("removed", 71.234, "%", low=70.1, high=72.4),
    figure("tokens", 4608, "tokens", "recorded"),
    condition="n > 9",
)
LESS = record(
    "big",
    "does not hold",
    figure("removed", 40.5, "%", low=39, high=42),
    figure("tokens", 4608, "tokens", "recorded"),
    reason="too little",
)


def column(*records, machine=THERE):
    """A column as `efflab ledger run` writes it."""
    versions = dict(python="3.11.7", torch="2.13.0+cpu")
    found = {r["claim"]: r for r in records}
    return Column(machine, "2026-11-20", found, versions=versions)


def store(root, verdicts):
    (root / "data" / "verdicts.json").write_text(json.dumps(verdicts), encoding="utf-8")


def bytes_under(folder):
    """{path: content} of all files of a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
