"""The ledger and the README's tables: of toy verdicts, and whether the real ones are up to date."""

import json
import re

import pytest

from efflab.publishing import ledger, readme
from efflab.publishing.catalog import ROOT
from efflab.publishing.ledger import short_ledger

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
"""
MARKERS = "\n\n".join(
    f"{readme.START.format(name)}\nold\n{readme.END.format(name)}" for name in readme.TABLES
)


def figure(name, value, unit="", kind="measured", low=None, high=None):
    return dict(name=name, value=value, unit=unit, kind=kind, low=low, high=high)


def record(claim, outcome, *figures, condition="", reason=""):
    holds = {"holds": True, "holds if": True, "does not hold": False, "undecided": None}[outcome]
    texts = dict(condition=condition, rule="below one", reason=reason)
    return dict(claim=claim, holds=holds, outcome=outcome, **texts, figures=list(figures))


SMALL = record("small", "does not hold", figure("bits", 3.5, kind="computed"), reason="over one")
BIG = record("big", "holds if", figure("removed", 71.234, "%", low=70.1, high=72.4),
             figure("tokens", 4608, "tokens", "recorded"), condition="n > 9")  # fmt: skip


@pytest.fixture
def root(toy):
    """A repository with two verdicts of three claims."""
    (toy / "catalog.toml").write_text(CATALOG, encoding="utf-8")
    (toy.parent / "data").mkdir()
    (toy.parent / "data" / "claims.toml").write_text(CLAIMS, encoding="utf-8")
    (toy.parent / "README.md").write_text(f"before\n{MARKERS}\nafter\n", encoding="utf-8")
    store(toy.parent, {"90": [SMALL, BIG]})
    return toy.parent


def store(root, verdicts):
    (root / "data" / "verdicts.json").write_text(json.dumps(verdicts), encoding="utf-8")


def between(text, name):
    start, end = readme.START.format(name), readme.END.format(name)
    return text.partition(start)[2].partition(end)[0].strip().splitlines()


def test_report_writes_every_table_and_the_page(root):
    lines = []
    readme.report(root, say=lines.append)
    text = (root / "README.md").read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert between(text, "notebooks") == [
        "|  | notebook | 中文 | minutes | what you find out |",
        "| --- | --- | --- | --- | --- |",
        "| 90 | [A toy](notebooks/90_toy.ipynb) | [玩具](notebooks/zh/90_toy.ipynb) | 5 "
        "| that it works |",
    ]
    assert between(text, "ledger") == [
        "| claim | outcome | the figure that decides | notebook |",
        "| --- | --- | --- | --- |",
        "| A \\| B | Holds if | removed: 71.2% (70.1 to 72.4), measured | 90 |",
        "| C | Does not hold | bits: 3.5, computed | 90 |",
    ]
    assert between(text, "notebooks in Chinese")[2] == (
        "| 90 | [玩具](notebooks/zh/90_toy.ipynb) | [A toy](notebooks/90_toy.ipynb) | 5 | 它能用 |"
    )
    assert between(text, "map in Chinese")[2:] == [
        "| 1.1 | 甲或乙。 | [90 玩具](notebooks/zh/90_toy.ipynb) | 有条件成立 |",
        "| 1.2 | 丙。 | [90 玩具](notebooks/zh/90_toy.ipynb) | 不成立 |",
        "| 2 | 丁。 | 91 | — |",
    ]
    assert lines[1:] == ["README.md brought up to date", "docs/ledger.md brought up to date"]
    readme.report(root, say=lines.append)
    assert len(lines) == 4  # nothing to bring up to date


def test_the_page_has_every_figure_and_text(root):
    text = ledger.page(root)
    assert text.startswith(ledger.PAGE_HEAD)
    assert text.endswith(
        """\
## Section 1.1

### big

A or B, told at length.  
甲或乙。

**Holds if · 有条件成立**: n > 9

Rule: below one

Judged in [90 A toy](../notebooks/90_toy.ipynb).

| figure | value | 95 % interval | kind |
| --- | --- | --- | --- |
| removed | 71.2% | 70.1 to 72.4 | measured |
| tokens | 4,608 tokens |  | recorded |

## Section 1.2

### small

C.  
丙。

**Does not hold · 不成立**

Why: over one

Rule: below one

Judged in [90 A toy](../notebooks/90_toy.ipynb).

| figure | value | 95 % interval | kind |
| --- | --- | --- | --- |
| bits | 3.5 |  | computed |
"""
    )


def test_no_line_of_the_short_ledger_is_wider_than_a_screen(root):
    long = figure("a name of many words " * 9, 71.234, "points", low=-0.001, high=123456.7)
    store(root, {"90": [record("big", "holds", long)]})
    line = short_ledger(root).splitlines()[-1]
    assert line.startswith("| A \\| B | Holds | a name of many words a name")
    assert line.endswith(" …: 71.2 points (-0.001 to 123,457), measured | 90 |")
    assert ledger.WIDEST - 12 < len(line) <= ledger.WIDEST


OLD = dict(claim="big", holds=True, condition="", figures={"x": 0.12}, kind="measured")


@pytest.mark.parametrize(
    ("verdicts", "message"),
    [
        ({"90": [OLD]}, r"record of big=.*expected \['claim', 'condition'.*run efflab build"),
        ({"90": [BIG | {"outcome": "perhaps"}]}, "'perhaps': expected one of"),
        ({"90": [BIG | {"figures": []}]}, "expected at least one figure"),
        ({"90": [BIG | {"figures": [{"name": "x", "value": 1}]}]}, r"expected \['high'"),
        ({"90": [record("big", "holds", figure("x", 1, kind="guessed"))]}, "'guessed'"),
        ({"90": [BIG | {"claim": "nobody's"}]}, 'claim="nobody\'s": expected one of data'),
        ({"91": [BIG]}, "notebook of big='91': expected its owner, 90"),
        ({"90": [BIG, BIG]}, "claim='big': expected one verdict"),
    ],
)
def test_a_verdict_that_is_not_whole_is_refused(root, verdicts, message):
    store(root, verdicts)
    with pytest.raises(ValueError, match=message):
        ledger.verdicts(root)


def test_a_readme_without_a_marker_is_refused(root):
    (root / "README.md").write_text("nothing here\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"README\.md: expected the lines '<!-- notebooks: start"):
        readme.report(root, say=lambda line: None)


# --- The real ones ---------------------------------------------------------------------------


def test_the_tables_and_the_page_are_what_report_would_write():
    assert readme.readme() == (ROOT / "README.md").read_text(encoding="utf-8")
    assert ledger.page() == (ROOT / "docs" / "ledger.md").read_text(encoding="utf-8")


def test_claims_fit_into_a_line():
    for name, claim in ledger.claims().items():
        assert len(ledger.short_claim(claim)) <= 65, name


def test_the_readme_has_no_broken_table():
    """No table row stands alone, cut off from its head by an empty line."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for block in re.split(r"\n\s*\n", text):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        if rows:
            assert re.fullmatch(r"[|\s:-]+", rows[1]), rows[0]
            assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1, rows[0]
