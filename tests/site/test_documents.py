"""Pages of docs/: those to which notebooks lead, and no other local link in a notebook."""

import re

import axe
import crawl
import pytest
from serving import DESK, PHONE, opened, serving

from efflab.base.formats import LANGUAGES
from efflab.base.places import ROOT
from efflab.publishing.catalog import NOTEBOOKS, catalog, find
from efflab.publishing.site import documents
from efflab.publishing.site.assets import Assets
from efflab.publishing.site.notebook_pages import page_address
from efflab.publishing.site.templates import STATIC

LINK = re.compile(r"\]\(([^)\s]+)\)")


def test_every_local_link_of_a_notebook_is_a_page_of_the_site():
    pages = {f"{entry['name']}.html" for entry in catalog().values()}
    pages |= {f"{name}.html" for name in documents.linked_documents(NOTEBOOKS)}
    for entry in catalog().values():
        source = find(entry["name"]).read_text(encoding="utf-8").replace("\n# ", "")
        local = [url for url in LINK.findall(source) if "://" not in url and url[0] != "#"]
        assert {page_address(url).partition("#")[0] for url in local} <= pages, entry["name"]


def test_the_linked_documents_exist():
    names = documents.linked_documents(NOTEBOOKS)
    assert names == ["predictions"]
    assert all((ROOT / "docs" / f"{name}.md").exists() for name in names)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_document_is_a_page_in_the_readers_language(language, tmp_path):
    path, table = tmp_path / "times.md", "| a |\n|---|\n| 1 |\n"
    text = f"# Ledger\n\n{documents.SWITCH}\n## First\n\nfair\n\n{table}\n## 中文\n\n### 一\n\n好\n"
    path.write_text(text, "utf-8")
    html = documents.write(path, language)
    (tmp_path / "page.html").write_text(html, "utf-8")
    page = crawl.Page(tmp_path / "page.html")
    assert html.count("<h1>" + ("总账" if language == "zh" else "Ledger") + "</h1>") == 1
    assert ("fair" in html, "好" in html) == (language == "en", language == "zh")
    assert ('<div class="scroll"><table>' in html) == (language == "en")
    anchor = "一" if language == "zh" else "First"
    assert anchor in page.ids
    assert ("a", f"#{anchor}") in page.addresses
    assert "#中文" not in html
    assert ("a", f"{'../' if language == 'zh' else 'zh/'}times.html") in page.addresses


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_linked_document_has_both_languages(language):
    for name in documents.linked_documents(NOTEBOOKS):
        html = documents.write(ROOT / "docs" / f"{name}.md", language)
        heading = re.search("<h1>(.*)</h1>", html)[1]
        assert (re.search("[一-鿿]", heading) is not None) == (language == "zh")
        assert html.count("<table>") > 1


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_nothing_serious_stands_in_the_way(size, tmp_path, chromium):
    assets = Assets(tmp_path)
    for path in STATIC.iterdir():
        assets.add(path.name, path.read_bytes())
    (tmp_path / "sw.js").touch()
    places = dict(en=tmp_path, zh=tmp_path / "zh")
    for language, place in places.items():
        place.mkdir(exist_ok=True)
        html = documents.write(ROOT / "docs" / "predictions.md", language)
        (place / "predictions.html").write_text(html, "utf-8")
    with serving(tmp_path) as home, opened(chromium, home, viewport=size) as page:
        for name in ("predictions.html", "zh/predictions.html"):
            page.goto(home + name)
            page.wait_for_load_state("networkidle")
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
            assert axe.serious(page) == []
