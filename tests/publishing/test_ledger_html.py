"""The ledger's page: machines side by side, why they differ, and nothing that it would execute."""

import re
from html import unescape

import pytest
from browser import FLAGS
from ledgers import BIG, CHINESE, LESS, SMALL, THERE, column, figure, store
from playwright.sync_api import sync_playwright

from efflab.lab import Outcome, text
from efflab.publishing import judging, ledger_html, pool
from efflab.publishing.catalog import ROOT
from efflab.publishing.doctor import BROWSER_ADVICE, find_browser
from efflab.publishing.judging import turning
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
        "They differ. What turns the outcome:",
        *("figure", "Here, 2 threads", "There, 1 thread"),
        *("removed", "71.2% (70.1 to 72.4) [measured]", "40.5% (39 to 42) [measured]"),
        "Rule: below one",
    ]
    cells = re.findall(r"<td data-machine.*?</td>", found)[:2]
    assert [said(cell)[:3] for cell in cells] == [
        ["◐", "Holds if", "n &gt; 9"],
        ["✗", "Does not hold", "too little"],
    ]


def test_machines_that_agree_need_no_reason(root):
    page = page_with(root, column(LESS, SMALL))
    assert 'class="why"' not in row(page, "small")
    every = said(re.search(r"<details>(.*?)</details>", row(page, "small"), re.DOTALL)[1])
    assert every[:2] == ["Rule and all figures", "Rule: below one"]
    assert every[5:] == ["bits", *["3.5 [computed]"] * 2, "printed", *["7 [published]"] * 2]


def test_missing_partial_and_not_yet_are_told_apart(root):
    page = page_with(root, column(LESS))
    machines = said(re.search(r'<ul class="machines">(.*?)</ul>', page, re.DOTALL)[1])
    assert machines == [
        "Here, 2 threads",
        "built notebooks · 2026-11-26",
        "whole: 2 claims",
        "Holds 0 · Holds if 1 · Does not hold 1 · Undecided 0",
        "There, 1 thread",
        "its own run · 2026-11-20 · python 3.11.7 · torch 2.13.0+cpu",
        "partial: 1 of 2 claims",
        "Holds 0 · Holds if 0 · Does not hold 1 · Undecided 0",
    ]
    assert said(row(page, "small")).count("missing") == 1
    assert said(row(page, "later"))[:4] == ["D.", "later · notebook 91", "not yet", "not yet"]
    assert said(row(page, "later", "zh"))[2:4] == ["尚未写成", "尚未写成"]


def test_a_figure_that_a_record_lacks_is_missing(root, monkeypatch):
    """A record of an experiment has the figures that its rule asks for, and no other."""
    more = BIG | dict(figures=[*BIG["figures"], figure("only-here", 1)])
    store(root, {"90": [SMALL, more]})
    shown = [*ledger_html.columns(root), column(LESS)]
    monkeypatch.setattr(ledger_html, "columns", lambda root: shown)
    rows = said(row(page_with(root), "big"))
    place = rows.index("only-here")
    assert rows[place + 1 : place + 3] == ["1 [measured]", "missing"]


def test_it_speaks_chinese(root):
    found = said(row(page_with(root, column(LESS)), "big", "zh"))
    assert found[:5] == ["甲或乙。", "big ·", "90 玩具", "◐", "有条件成立"]
    assert {CHINESE[word] for word in ("n > 9", "too little", "removed")} <= set(found)
    assert "规则：小于一" in found
    assert text.language() == "en"


def test_what_others_wrote_is_text_and_nothing_else(root):
    script, image = "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>'
    mine, evil = (
        r | dict(figures=[*r["figures"], figure("evil", 1, image) | dict(name=script)])
        for r in (BIG, LESS)
    )
    store(root, {"90": [SMALL, mine]})
    page = page_with(root, column(evil, machine=THERE | dict(cpu=image)))
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert 'data-machine="&#34;&gt;&lt;img src=x onerror=alert(1)&gt;, 1 thread"' in page
    assert "default-src 'none'" in page  # nor would a browser run or fetch anything


# --- Why -------------------------------------------------------------------------------------


def more_tokens(record, value):
    return record | dict(figures=[record["figures"][0], figure("tokens", value)])


def test_what_turns_an_outcome_is_found_by_trying(root):
    holds = more_tokens(BIG, 9) | dict(outcome="holds", condition="")
    assert turning("big", BIG, LESS, root) == ["removed"]
    assert turning("big", BIG, holds, root) == ["tokens"]


def test_where_no_single_figure_turns_it_the_first_stands_for_all(root, monkeypatch):
    def both(figures):
        high = [f.value > 50 for f in figures]
        holds = all(high) if len(set(high)) == 1 else None
        return Outcome(holds, figures, rule="both", reason="" if holds else "not both")

    monkeypatch.setattr(judging, "rule", lambda claim, root: both)
    assert turning("big", BIG, more_tokens(LESS, 9), root) == ["removed"]
    assert turning("big", BIG, LESS | dict(outcome="undecided"), root) == ["removed"]


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


def test_this_machines_column_is_whole_and_anothers_partial(page):
    first, *others = pool.columns()
    assert list(first.verdicts) == pool.due()
    assert any(c.source == "records" for c in others)
    assert "partial: 1 of" in body(page)


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
