"""A small site and the real one, built once for all tests, and the browser."""

import base64
import io

import ledgers
import pytest
from browser import chromium  # noqa: F401 - fixture
from PIL import Image

from efflab.publishing import build
from efflab.publishing.site.build import build_site

FIGURE = """

# %%
figure = {{"data": [{{"y": [1, 2], "name": "</script>"}}], "layout": {{"height": 300}}}}
display({{"application/vnd.plotly.v1+json": figure, "image/png": "{png}"}}, raw=True)
"""


def png() -> str:
    Image.new("RGB", (900, 600), "navy").save(buffer := io.BytesIO(), "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture
def toy_site(toy, monkeypatch):
    """The folder of a site with one notebook, which links to itself and shows one figure."""
    source = toy / "src" / "90_toy.py"
    text = source.read_text(encoding="utf-8")
    text = text.replace("# # A toy", "# # A toy\n# See [it](90_toy.ipynb), once more")
    text = text.replace("# # 玩具", "# # 玩具\n#\n# 再看一遍")
    source.write_text(text + FIGURE.format(png=png()), encoding="utf-8")
    (toy / "catalog.toml").write_text(ledgers.CATALOG, encoding="utf-8")
    build.build(folder=toy, prelude="", busy=True, say=lambda line: None)
    root = ledgers.fill_repository(toy, monkeypatch)
    return build_site(root / "site", folder=toy, say=lambda line: None).parent
