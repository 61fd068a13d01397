"""A small site in both languages, made once, and the browser."""

import base64
import io

import ledgers
import nbformat
import pytest
from browser import chromium  # noqa: F401 - fixture
from PIL import Image
from serving import serving

from efflab.base.formats import PLOTLY
from efflab.publishing.site.build import build_site

TEXTS = {
    "en": "# 90 · A toy\n\nSee [it](90_toy.ipynb), once more.\n\n## Small steps\n\nA band of ones.",
    "zh": "# 90 · 玩具\n\n再看[一遍](90_toy.ipynb)。\n\n## 小步\n\n一条带状矩阵。",
}


def png() -> str:
    Image.new("RGB", (900, 600), "navy").save(buffer := io.BytesIO(), "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def write_notebook(path, text) -> None:
    """A built notebook with a text and one figure, whose name would end a script."""
    figure = {"data": [{"y": [1, 2], "name": "</script>"}], "layout": {"height": 300}, "frames": []}
    data = {PLOTLY: figure, "image/png": png(), "text/plain": "a figure"}
    output = nbformat.v4.new_output("display_data", data=data)
    cells = [
        nbformat.v4.new_markdown_cell(text),
        nbformat.v4.new_code_cell("show()", outputs=[output], execution_count=1),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


@pytest.fixture(scope="session")
def small_site(tmp_path_factory):
    """The folder of a site with one notebook of two claims, and the pages that compute."""
    root = tmp_path_factory.mktemp("repository")
    folder = root / "notebooks"
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "90_toy.py").touch()
    write_notebook(folder / "90_toy.ipynb", TEXTS["en"])
    write_notebook(folder / "zh" / "90_toy.ipynb", TEXTS["zh"])
    with pytest.MonkeyPatch.context() as patch:
        ledgers.fill_repository(folder, patch)
        return build_site(root / "site", folder=folder, say=lambda line: None).parent


@pytest.fixture(scope="session")
def home(small_site):
    """The small site's address, ending in "/"."""
    with serving(small_site) as address:
        yield address
