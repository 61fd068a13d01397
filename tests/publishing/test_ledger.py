"""The ledger and the README's tables: of toy verdicts, and whether the real ones are up to date."""

import re

import pytest
from ledgers import BIG, TOKENS, build_another, figure, record, store

from efflab.publishing import ledger, readme
from efflab.publishing.catalog import ROOT
from efflab.publishing.ledger import short_ledger


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
        "| claim | outcome, part by part | the first figure | notebook |",
        "| --- | --- | --- | --- |",
        "| A \\| B | Holds: ✓ amount ✓ length | removed: 71.2% (70.1 to 72.4), measured | 90 |",
        "| C | Does not hold: ✗ few | bits: 3.5, computed | 90 |",
    ]
    assert between(text, "notebooks in Chinese")[2] == (
        "| 90 | [玩具](notebooks/zh/90_toy.ipynb) | [A toy](notebooks/90_toy.ipynb) | 5 | 它能用 |"
    )
    assert between(text, "map in Chinese")[2:] == [
        "| 1.1 | 甲或乙。 | 成立 ✓✓ | 移除：71.2%（70.1 至 72.4） [实测] "
        "| [90 玩具](notebooks/zh/90_toy.ipynb) |",
        "| 1.2 | 丙。 | 不成立 ✗ | 比特：3.5 [计算] | [90 玩具](notebooks/zh/90_toy.ipynb) |",
        "| 2 | 丁。 | — | — | 91 |",
    ]
    assert between(text, "counts") == [
        "2 claims in 3 parts: 2 hold, 0 hold if a condition is met, 1 do not, 0 are undecided. "
        "2 rest on formulas and exact counts, 0 on published tables; of the sampled ones 0 were "
        "registered before their numbers, 1 are exploratory."
    ]
    words = "2 条论断共 3 个部分：2 个成立，0 个有条件成立，1 个不成立，"
    assert between(text, "counts in Chinese")[0].startswith(words)
    written = ("README.md", "docs/ledger.md", "docs/ledger.html")
    assert lines[1:] == [f"{name} brought up to date" for name in written]
    readme.report(root, say=lines.append)
    assert len(lines) == 5  # nothing to bring up to date


def test_the_page_says_which_machine_built_a_notebook(root, monkeypatch):
    assert "\n\n- Here, 2 threads: notebook 90\n\n## Section" in ledger.page(root)
    build_another(root, monkeypatch)
    lines = ledger.page(root).splitlines()
    first = lines.index("- Here, 2 threads: notebook 90")
    assert lines[first + 1] == "- There, 1 thread: notebook 91"
    (root / "data" / "builds.json").unlink()
    assert "\n- an unknown machine: notebooks 90, 91\n" in ledger.page(root)


def test_the_page_has_every_figure_and_text(root):
    text = ledger.page(root)
    assert text.startswith("# The ledger\n\nWhat the built notebooks found, claim by claim")
    assert text.endswith(
        """\
## Section 1.1

### big

A or B, told at length.  
甲或乙。

**Holds · 成立**, judged in [90 A toy](../notebooks/90_toy.ipynb).

✓ **Holds**: Over half is removed.  
移除过半。

Rule: above 50% (exploratory)

| figure | value | 95 % interval | kind |
| --- | --- | --- | --- |
| removed | 71.2% | 70.1 to 72.4 | measured |

✓ **Holds**: There are over 1,000 tokens.  
词元超过 1,000 个。

Rule: above 1,000 tokens (formula)

| figure | value | 95 % interval | kind |
| --- | --- | --- | --- |
| tokens | 4,608 tokens |  | recorded |

## Section 1.2

### small

C.  
丙。

**Does not hold · 不成立**, judged in [90 A toy](../notebooks/90_toy.ipynb).

✗ **Does not hold**: One bit is enough.  
一比特就够。

it lies outside what the rule allows

Rule: 1 or less (formula)

| figure | value | 95 % interval | kind |
| --- | --- | --- | --- |
| bits | 3.5 |  | computed |
| printed | 7 |  | published |
"""
    )


def test_a_line_of_the_short_ledger_names_its_figure_in_full(root):
    long = figure("removed", 71.234, "points", low=-0.001, high=123456.7)
    long |= dict(name="a name of many words " * 9)
    store(root, {"90": [record("big", long, TOKENS)]})
    line = short_ledger(root).splitlines()[-1]
    assert line.startswith("| A \\| B | Holds in part: ? amount ✓ length | a name of many words")
    assert line.endswith(" words : 71.2 points (-0.001 to 123,457), measured | 90 |")


OLD = dict(claim="big", holds=True, condition="", figures={"x": 0.12}, kind="measured")


def with_part(**changes):
    """BIG with its first part changed."""
    return BIG | {"parts": [BIG["parts"][0] | changes, *BIG["parts"][1:]]}


@pytest.mark.parametrize(
    ("verdicts", "message"),
    [
        ({"90": [OLD]}, r"record of big=.*expected \['claim', 'form'.*run efflab build"),
        ({"90": [BIG | {"outcome": "perhaps"}]}, "big: outcome='perhaps': expected 'holds'"),
        ({"90": [BIG | {"outcome": "holds in part"}]}, "outcome='holds in part': expected 'holds'"),
        ({"90": [BIG | {"holds": False}]}, "big: holds=False: expected True"),
        ({"90": [BIG | {"parts": []}]}, r"parts=\[\]: expected at least one"),
        ({"90": [BIG | {"parts": None}]}, "record of big: parts=None: expected a list"),
        ({"90": [BIG | {"parts": [None]}]}, "part of record of big=None: expected an object"),
        ({"90": [with_part(outcome="maybe")]}, "big: outcome='maybe': expected one of"),
        ({"90": [with_part(basis="felt")]}, "big: basis='felt': expected one of"),
        ({"90": [with_part(since="2026-11-28")]}, "since='2026-11-28': expected a day where"),
        ({"90": [with_part(outcome="undecided")]}, "big: reason='': expected why it does not"),
        ({"90": [with_part(figures=[])]}, "expected at least one number"),
        ({"90": [with_part(figures=None)]}, "part of record of big: figures=None: expected a list"),
        ({"90": [with_part(condition="n > 9")]}, "condition='n > 9': expected a condition exactly"),
        ({"90": [with_part(rule=None)]}, "part of record of big: rule=None: expected a text"),
        ({"90": [BIG | {"claim": None}]}, "record of None: claim=None: expected a text"),
        ({"90": None}, "verdicts.json is damaged .notebook 90=None: expected a list.*efflab build"),
        ({"90": [None]}, "record=None: expected an object"),
        ([], r"verdicts.json is damaged .content=\[\]: expected an object"),
        (None, "content=None: expected an object"),
        ({"90": [with_part(figures=[None])]}, "figure of record of big=None: expected an object"),
        ({"90": [with_part(figures=[figure("x", None)])]}, "big: x=None: expected a number"),
        ({"90": [with_part(figures=[figure("x", float("nan"))])]}, "number='NaN': expected a fin"),
        ({"90": [with_part(figures=[figure("x", 1, low=2, high=3)])]}, "x=1: expected a number in"),
        ({"90": [with_part(figures=[figure("x", 1, high=3)])]}, "x, low=None: expected both ends"),
        ({"90": [with_part(figures=[figure("x", 1)])]}, "x: low=None: expected an interval"),
        ({"90": [with_part(figures=[{"name": "x", "value": 1}])]}, r"expected \['high'"),
        ({"90": [with_part(figures=[figure("x", 1, kind="guessed")])]}, "'guessed'"),
        ({"90": [with_part(figures=[TOKENS | {"value": 9, "low": 9}])]}, "tokens.*the same in all"),
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
    predictions = (ROOT / "docs" / "predictions.md").read_text(encoding="utf-8")
    assert readme.predictions() == predictions


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
