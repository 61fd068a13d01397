"""The index and the ledger in a browser: search, themes, keyboard, without a network, from disk."""

import axe
import pytest
from serving import DESK, PHONE, opened

PAGES = "index.html", "ledger.html", "zh/index.html", "zh/ledger.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_nothing_serious_stands_in_the_way(home, chromium, size, scheme):
    with opened(chromium, home, viewport=size, color_scheme=scheme) as page:
        for name in PAGES:
            page.goto(home + name)
            assert axe.serious(page) == [], name
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= size["width"], name


def test_axe_would_find_something(home, chromium):
    with opened(chromium, home) as page:
        page.goto(home + "index.html")
        page.evaluate("document.querySelector('#query').labels[0].remove()")
        page.evaluate("document.querySelector('#query').placeholder = ''")
        assert any("label" in line for line in axe.serious(page))


def test_the_search_finds_parts_of_words(home, chromium):
    with opened(chromium, home) as page:
        page.goto(home)
        page.keyboard.press("/")
        page.keyboard.type("BAND")
        found = page.locator("#passages a")
        found.wait_for()
        assert found.all_inner_texts() == ["90 A toy › Small steps\n\nA band of ones."]
        assert page.locator("#passages mark").all_inner_texts() == ["band"]
        assert page.locator("#found").inner_text() == "1 of 1 notebooks, 1 passages"
        found.click()
        assert page.url.startswith(home + "90_toy.html#")
        page.goto(home + "zh/")
        page.locator("#query").fill("带状")
        page.locator("#passages mark").wait_for()
        page.locator("#query").fill("没有这个")
        assert page.locator("#found").inner_text() == "没有找到"
        assert page.locator(".notebook").is_hidden()
        page.locator("#query").fill("甲或乙")
        assert page.locator(".notebook").is_visible()


def test_every_control_is_reached_by_tab_and_shows_it(home, chromium):
    with opened(chromium, home) as page:
        page.goto(home)
        controls = "a[href], button, input, select, summary"
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        seen = page.locator(controls).evaluate_all(
            "all => all.filter(e => e.checkVisibility()).length"
        )
        names = []
        for _ in range(seen):
            outline = "getComputedStyle(document.activeElement).outlineStyle"
            names.append(page.evaluate("document.activeElement.outerHTML"))
            assert page.evaluate(outline) != "none", names[-1]
            page.keyboard.press("Tab")
        assert len(set(names)) == seen


def test_the_theme_is_kept(home, chromium):
    with opened(chromium, home, color_scheme="light") as page:
        page.goto(home)
        paper = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(paper)
        page.locator("#theme").click()
        dark = page.evaluate(paper)
        page.goto(home + "zh/ledger.html")
        assert page.evaluate(paper) == dark != light


def test_a_second_visit_needs_no_network(home, chromium):
    with opened(chromium, home) as page:
        page.goto(home)
        stored = "caches.open('efflab-pages').then(c => c.keys()).then(k => k.length > 0)"
        page.wait_for_function(stored)
        page.wait_for_load_state("networkidle")
        page.context.set_offline(True)
        page.goto(home + "index.html#notebooks")
        assert page.locator("h1").is_visible()
        assert page.evaluate("getComputedStyle(document.querySelector('.cards')).display") == "grid"


def test_from_disk_it_works_as_well(small_site, chromium):
    start = small_site.as_uri() + "/"
    with opened(chromium, start) as page:
        page.goto(start + "index.html")
        page.locator("#query").fill("band")
        page.locator("#passages mark").wait_for()
        page.get_by_role("link", name="Ledger").first.click()
        machines = page.locator(".machines")  # waits until the page has loaded
        assert machines.evaluate("one => getComputedStyle(one).display") == "flex"


def test_the_pages_forbid_other_hosts(home, chromium):
    context = chromium.new_context()
    page, refused = context.new_page(), []
    page.on("console", lambda message: refused.append(message.text))
    page.goto(home)
    page.evaluate("fetch('https://example.com/').catch(() => 0)")
    page.evaluate(
        "document.body.innerHTML = '<img src=https://example.com/x.png onerror=alert(1)>'"
    )
    page.wait_for_timeout(300)
    context.close()
    assert sum("Content Security Policy" in line for line in refused) >= 2, refused
