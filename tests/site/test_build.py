"""The web pages: interactive figures from one shared script, no kernel, and links that lead on."""

import re

from efflab.publishing import build
from efflab.publishing.site.build import build_site

FIGURE = """

# %%
figure = {"data": [{"y": [1, 2], "name": "</script>"}], "layout": {"height": 300}}
display({"application/vnd.plotly.v1+json": figure, "image/png": "aG" + "k="}, raw=True)
"""


def test_pages_draw_their_figures(toy):
    source = toy / "src" / "90_toy.py"
    text = source.read_text(encoding="utf-8").replace(
        "# # A toy", "# # A toy\n# [it](90_toy.ipynb)"
    )
    source.write_text(text + FIGURE, encoding="utf-8")
    entry = '["90"]\nname = "90_toy"\ntitle = { en = "A <toy>", zh = "玩具" }\n'
    (toy / "catalog.toml").write_text(entry, encoding="utf-8")
    build.build(folder=toy, prelude="", busy=True, say=lambda line: None)
    ledger = toy.parent / "docs" / "ledger.html"
    ledger.parent.mkdir()
    ledger.write_text('<a href="../notebooks/zh/90_toy.ipynb">90</a>', encoding="utf-8")
    index = build_site(toy.parent / "site", folder=toy, say=lambda line: None)
    assert '<a href="90_toy.html">A &lt;toy&gt;</a>' in index.read_text(encoding="utf-8")
    assert '<a href="ledger.html">Ledger</a>' in index.read_text(encoding="utf-8")
    chinese = (index.parent / "zh" / "index.html").read_text(encoding="utf-8")
    assert '<a href="ledger.html">总账</a>' in chinese
    links = (index.parent / "ledger.html").read_text(encoding="utf-8")
    assert links == '<a href="zh/90_toy.html">90</a>'
    for depth, folder in enumerate((index.parent, index.parent / "zh")):
        html = (folder / "90_toy.html").read_text(encoding="utf-8")
        script = re.search(r'<script src="([^"]*plotly[^"]*)"', html)[1]
        assert (folder / script).resolve().is_relative_to(index.parent / "assets")
        assert (folder / script).stat().st_size > 1e6
        assert html.index(script) < html.index("Plotly.newPlot")
        assert "aGk=" not in html  # the picture is for readers without JavaScript
        assert '"name": "<\\/script>"' in html
        assert '"showSendToCloud": false' in html  # also where the notebook's own figure has none
        assert ".ipynb" not in html
        assert html.count('<a href="90_toy.html">') == (depth == 0)  # the notebook's own link
        assert '<a href="index.html">' in html
        other = "../90_toy.html" if depth else "zh/90_toy.html"
        assert f'<a href="{other}">' in html
        assert f'<html lang="{"zh" if depth else "en"}"' in html
        assert '<script src="https:' not in html  # would hold up a page without a network
