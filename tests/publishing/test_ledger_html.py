"""The ledger's page: machines side by side, why they differ, and nothing that it would execute."""

import re
from dataclasses import replace
from html import unescape

import ledgers
import pytest
from browser import FLAGS
from ledgers import (
    BIG,
    CHINESE,
    LESS,
    SMALL,
    THERE,
    build_another,
    column,
    figure,
    record,
    store,
)
from playwright.sync_api import sync_playwright

from efflab.experiments.provenance import machine_name
from efflab.lab import text
from efflab.publishing import ledger_html, pool, usage
from efflab.publishing.catalog import ROOT
from efflab.publishing.doctor import BROWSER_ADVICE, find_browser
from efflab.publishing.ledger import claims


def page_with(root, *columns):
    for number, one in enumerate(columns):
        path = root / f"{number}.json"
        path.write_text(one.text(), encoding="utf-8")
        pool.add(path, root)
    return ledger_html.html(root)


def body(page, language="en"):
    return re.search(rf'<main lang="{language}">(.*?)</main>', page, re.DOTALL)[1]


def row(page, claim, language="en"):
    """All rows of one claim."""
    rows = re.split(r'(?=<tr class="claim">)', body(page, language))
    return next(r for r in rows if f"<small>{claim} ·" in r)


def said(html):
    """A piece of the page without its tags, one line a text."""
    return [line for line in re.split(r"\s*<[^>]*>\s*", html) if line]


def test_machines_that_differ_show_both_values_and_the_rule(root):
    found = row(page_with(root, column(LESS, SMALL)), "big")
    why = said(re.search(r'<tr class="why">(.*?)</div>', found, re.DOTALL)[1])
    assert why == [
        "They differ. The figures of the parts that do:",
        *("figure", "Here, 2 threads", "There, 1 thread"),
        *("removed", "71.2% (70.1 to 72.4) [measured]", "40.5% (39 to 42) [measured]"),
    ]
    cells = re.findall(r"<td data-machine.*?</td>", found, re.DOTALL)[:2]
    assert [said(cell)[:6] for cell in cells] == [
        ["✓", "Holds", "✓", "Over half is removed.", "✓", "There are over 1,000 tokens."],
        ["◑", "Holds in part", "✗", "Over half is removed.", "✓", "There are over 1,000 tokens."],
    ]


def test_machines_that_agree_need_no_reason(root):
    page = page_with(root, column(LESS, SMALL))
    assert 'class="why"' not in row(page, "small")
    every = said(re.search(r"<details>(.*?)</details>", row(page, "small"), re.DOTALL)[1])
    assert every[:2] == ["Rule and all figures", "One bit is enough.: 1 or less (by formula)"]
    assert every[5:] == ["bits", *["3.5 [computed]"] * 2, "printed", *["7 [published]"] * 2]


def test_missing_partial_and_not_yet_are_told_apart(root):
    page = page_with(root, column(LESS))
    machines = said(re.search(r'<ul class="machines">(.*?)</ul>', page, re.DOTALL)[1])
    assert machines == [
        "Here, 2 threads",
        "built notebooks · 2026-11-26",
        "whole: 2 claims",
        "Holds 1 · Holds if 0 · Holds in part 0 · Does not hold 1 · Undecided 0",
        "There, 1 thread",
        "its own run · 2026-11-20 · python 3.11.7 · torch 2.13.0+cpu",
        "partial: 1 of 2 claims",
        "Holds 0 · Holds if 0 · Holds in part 1 · Does not hold 0 · Undecided 0",
    ]
    assert said(row(page, "small")).count("missing") == 1
    assert said(row(page, "later"))[:4] == ["D.", "later · notebook 91", "not yet", "not yet"]
    assert said(row(page, "later", "zh"))[2:4] == ["尚未写成", "尚未写成"]


def test_built_notebooks_of_two_machines_are_counted_once(root, monkeypatch):
    build_another(root, monkeypatch)
    page = page_with(root, column(LESS, machine=THERE | dict(cpu="Third")))
    machines = said(re.search(r'<ul class="machines">(.*?)</ul>', page, re.DOTALL)[1])
    assert machines[:11] == [
        "built notebooks of 2 machines, counted together",
        "whole: 3 claims",
        "Holds 1 · Holds if 0 · Holds in part 0 · Does not hold 2 · Undecided 0",
        "Here, 2 threads",
        "built notebooks · 2026-11-26",
        "notebooks 90: 2 of 3 claims",
        "the other notebooks were built on another machine: There, 1 thread",
        "There, 1 thread",
        "built notebooks · 2026-11-20",
        "notebooks 91: 1 of 3 claims",
        "the other notebooks were built on another machine: Here, 2 threads",
    ]
    assert machines[-2] == "partial: 1 of 3 claims"  # a run of its own
    cells = re.findall(r'<td[^>]*data-machine="([^"]*)">(.*?)</td>', row(page, "big"), re.DOTALL)
    words = [(name, said(cell)[:2]) for name, cell in cells[:3]]
    assert words == [
        ("Here, 2 threads", ["✓", "Holds"]),
        ("There, 1 thread", ["built on another machine"]),
        ("Third, 1 thread", ["◑", "Holds in part"]),
    ]
    assert said(row(page, "small")).count("missing") == 1  # in the run of its own
    chinese = body(page, "zh")
    assert "2 台机器构建的笔记本，合并计数" in chinese
    assert "其余笔记本在另一台机器上构建：There, 1 thread" in chinese
    assert said(row(page, "small", "zh")).count("在另一台机器上构建") == 1


def test_it_speaks_chinese(root):
    found = said(row(page_with(root, column(LESS)), "big", "zh"))
    assert found[:5] == ["甲或乙。", "big ·", "90 玩具", "✓", "成立"]
    assert {CHINESE["removed"], "移除过半。", "部分成立"} <= set(found)
    assert any("大于 50%（探索性" in line for line in found)
    assert text.language() == "en"


def test_what_others_wrote_is_text_and_nothing_else(root, monkeypatch):
    script, image = "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>'
    monkeypatch.setattr(ledgers, "RULES", ledgers.RULES.replace('"printed"', '"printed", "evil"'))
    figures = figure("bits", 3.5, kind="computed"), figure("printed", 7, kind="published")
    named = figure("evil", 1, image, "computed") | dict(name=script)
    evil = record("small", *figures, named)
    store(root, {"90": [evil, BIG]})
    page = page_with(root, column(evil, machine=THERE | dict(cpu=image)))
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert 'data-machine="&#34;&gt;&lt;img src=x onerror=alert(1)&gt;, 1 thread"' in page
    assert "default-src 'none'" in page  # nor would a browser run or fetch anything


# --- The real one ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page():
    text.missing.clear()
    made = ledger_html.html()
    assert not text.missing
    return made


def test_it_is_what_report_would_write(page):
    assert page == (ROOT / "docs" / "ledger.html").read_text(encoding="utf-8")


def test_every_claim_is_there_in_both_languages_and_links_lead_somewhere(page):
    for language in ("en", "zh"):
        for name, claim in claims().items():
            assert unescape(said(row(page, name, language))[0]) == claim["claim"][language]
    links = set(re.findall(r'(?:href|src)="([^"]*)"', page))
    assert links
    for link in links:
        assert (ROOT / "docs" / link).resolve().is_file(), link
    assert "url(" not in page
    assert "@import" not in page


def own_machine(claim):
    """The machine that built the claim's notebook, in one line."""
    builds = usage.read_builds(ROOT / "data" / "builds.json")
    return machine_name(builds[f"{claims()[claim]['notebook']} en"]["machine"])


def see_each_claim_once(page, columns):
    """Of the built notebooks' columns, one judges each due claim: its machine's; so they count."""
    n_built = sum(column.source == "built" for column in columns)
    for claim in pool.due():
        cells = re.findall(
            r'<td[^>]* ?data-machine="([^"]*)">(.*?)</td>', row(page, claim), re.DOTALL
        )
        assert [name for name, _ in cells[: len(columns)]] == [column.name for column in columns]
        judging = [name for name, cell in cells[:n_built] if 'class="outcome"' in cell]
        assert judging == [own_machine(claim)], claim
        rest = [said(cell) for name, cell in cells[:n_built] if name not in judging]
        assert rest == [["built on another machine"]] * (n_built - 1)
    machines = said(re.search(r'<ul class="machines">(.*?)</ul>', body(page), re.DOTALL)[1])
    whole = machines.index(f"whole: {len(pool.due())} claims")
    counted = [line for line in machines if line.startswith("Holds ")]
    assert len(counted) == 1 + len(columns) - n_built
    assert counted[0] == machines[whole + 1]
    assert sum(int(word) for word in re.findall(r"\d+", counted[0])) == len(pool.due())


@pytest.fixture
def elsewhere(monkeypatch):
    """As if another machine had built notebook 08."""
    real = usage.read_builds

    def read_builds(path):
        builds = real(path)
        return builds | {"08 en": builds["08 en"] | dict(machine=THERE)}

    monkeypatch.setattr(usage, "read_builds", read_builds)


def test_built_notebooks_judge_each_claim_once(page):
    see_each_claim_once(page, pool.columns())


def test_notebooks_of_two_machines_judge_each_claim_once(elsewhere):
    columns = pool.columns()
    assert len(pool.built_columns()) > 1
    see_each_claim_once(ledger_html.html(), columns)


def test_a_claim_lost_or_judged_twice_would_be_seen(elsewhere, monkeypatch):
    first, second, *more = pool.columns()
    lost = dict(list(first.verdicts.items())[1:])
    for verdicts in (lost, first.verdicts | second.verdicts):
        columns = [replace(first, verdicts=verdicts), second, *more]
        monkeypatch.setattr(ledger_html, "columns", lambda root, columns=columns: columns)
        changed = ledger_html.html()
        with pytest.raises(AssertionError):
            see_each_claim_once(changed, columns)


def test_on_a_phone_it_fits_and_the_switch_needs_no_script(page, tmp_path):
    if not find_browser():
        pytest.fail(BROWSER_ADVICE)
    path, asked = tmp_path / "ledger.html", []
    path.write_text(page, encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=FLAGS)
        context = browser.new_context(
            viewport=dict(width=390, height=800), java_script_enabled=False
        )
        tab = context.new_page()
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(path.as_uri())
        box = tab.locator("main[lang=en] .ledger").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
        assert tab.locator("main[lang=en] .ledger > thead").is_hidden()  # cards, not a table
        tab.locator("label[for=to-zh]").click()
        assert tab.locator("main[lang=zh]").is_visible()
        assert tab.locator("main[lang=en]").is_hidden()
        tab.set_viewport_size(dict(width=1200, height=800))
        assert tab.locator("main[lang=zh] .ledger > thead").is_visible()
        browser.close()
    assert asked == [path.as_uri()]
