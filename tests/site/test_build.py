"""What a build writes: pages in both languages that find their assets, and nothing besides."""

import json
import re

import crawl
from PIL import Image

from efflab.lab import text
from efflab.publishing.catalog import catalog
from efflab.publishing.site.assets import Assets


def read(path):
    return path.read_text(encoding="utf-8")


def test_the_toys_site_is_whole(small_site):
    for depth, folder in enumerate((small_site, small_site / "zh")):
        index, notebook = read(folder / "index.html"), read(folder / "90_toy.html")
        assert '<a href="90_toy.html"><span class="muted">90</span>' in index
        assert "<img src=" in index
        picture = re.search(r'<img src="([^"]*)" width="640" height="427"', index)[1]
        assert Image.open(folder / picture).size == (640, 427)
        assert re.findall(r'href="ledger.html#[^"]*">([^<]*)<', index) == (
            ["成立", "不成立"] if depth else ["Holds", "Does not hold"]
        )
        texts = re.search(r'data-texts="([^"]*)"', index)[1]
        assert ("再看一遍" if depth else "once more") in read(folder / texts)
        script = re.search(r'<script[^>]* src="([^"]*plotly[^"]*)"', notebook)[1]
        assert (folder / script).stat().st_size > 1e6
        assert '"name": "</script>"' not in notebook  # it would end the script
        assert "showSendToCloud" in notebook
        assert notebook.count(".ipynb") == notebook.count("<code>90_toy.ipynb</code>") > 0
        assert f'href="{"../" if depth else "zh/"}90_toy.html"' in notebook
        assert f'<html lang="{"zh" if depth else "en"}' in notebook
        ledger = read(folder / "ledger.html")
        assert '<a href="90_toy.html">' in ledger
    worker = read(small_site / "sw.js")
    known = set(json.loads(re.search(r"new Set\((\[.*?\])", worker)[1]))
    assets = {p.relative_to(small_site).as_posix() for p in (small_site / "assets").rglob("*.*")}
    assert known == assets
    assert not text.missing


def test_the_licences_of_what_the_pages_carry_lie_beside_them(small_site):
    text = read(small_site / "licences.txt")
    for words in (
        "The efflab authors",
        "Plotly Technologies",
        "Microsoft",
        "Mozilla Public License 2.0",
    ):
        assert words in text
    assert "{" not in text
    for page in (small_site / "index.html", small_site / "zh" / "ledger.html"):
        assert "licences.txt" in read(page)


def test_every_link_leads_somewhere_and_asks_no_other_host(small_site):
    # the pages that compute lead to the real notebooks
    elsewhere = tuple(f"no {entry['name']}.html" for entry in catalog().values())
    lines = [line for line in crawl.faults(small_site) if not line.endswith(elsewhere)]
    assert lines == []


def test_the_crawl_finds_what_is_wrong(tmp_path):
    page = '<h1 id="a">x</h1><a href="#a">1</a><a href="#b">2</a><a href="gone.html">3</a>'
    page += '<a href="https://example.com">4</a><img src="https://example.com/x.png">'
    (tmp_path / "index.html").write_text(page, encoding="utf-8")
    (tmp_path / "a.css").write_text("a { background: url(x.png) }", encoding="utf-8")
    assert crawl.faults(tmp_path) == [
        "index.html: no anchor #b",
        "index.html: no gone.html",
        "index.html: <img> asks https://example.com/x.png",
        "a.css loads something",
    ]


def test_what_another_build_left_is_removed(tmp_path):
    Assets(tmp_path).add("old.js", b"1")
    assets = Assets(tmp_path)
    address = assets.add("new.js", b"2")
    folder = assets.add_folder("engine", {"a.js": b"3", "b.js": b"4"})
    assets.remove_others()
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {address, folder + "a.js", folder + "b.js"}
