"""What a build writes: pages in both languages that find their assets, and nothing besides."""

import json
import re

from PIL import Image

from efflab.lab import text
from efflab.publishing.site.assets import Assets


def read(path):
    return path.read_text(encoding="utf-8")


def test_the_toys_site_is_whole(toy_site):
    for depth, folder in enumerate((toy_site, toy_site / "zh")):
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
        assert ".ipynb" not in notebook
        assert f'href="{"../" if depth else "zh/"}90_toy.html"' in notebook
        assert f'<html lang="{"zh" if depth else "en"}' in notebook
        ledger = read(folder / "ledger.html")
        assert '<a href="90_toy.html">' in ledger
    worker = read(toy_site / "sw.js")
    known = set(json.loads(re.search(r"new Set\((\[.*?\])", worker)[1]))
    assets = {p.relative_to(toy_site).as_posix() for p in (toy_site / "assets").rglob("*.*")}
    assert known == assets
    assert not text.missing


def test_what_another_build_left_is_removed(tmp_path):
    Assets(tmp_path).add("old.js", b"1")
    assets = Assets(tmp_path)
    address = assets.add("new.js", b"2")
    folder = assets.add_folder("engine", {"a.js": b"3", "b.js": b"4"})
    assets.remove_others()
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {address, folder + "a.js", folder + "b.js"}
