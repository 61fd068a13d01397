"""The notebooks as web pages that need no kernel: `efflab site`.

Figures stay interactive and share one plotly.min.js, so that a page is small and works offline.
"""

import json
import re
from pathlib import Path

from nbformat import NotebookNode

from efflab.base.files import write_atomically
from efflab.base.formats import LANGUAGES, PLOTLY
from efflab.lab.page import CONFIG
from efflab.publishing.catalog import NOTEBOOKS, built_path, catalog, find
from efflab.publishing.pages import render
from efflab.publishing.source import read_built

SCRIPT = "plotly.min.js"
HEADINGS = {"en": "The notebooks", "zh": "全部笔记本"}
LEDGER, LEDGER_NAMES = "ledger.html", {"en": "The ledger", "zh": "总账"}
OTHER = {"en": ("zh/", "中文"), "zh": ("../", "English")}
"""Folder of the pages in the other language, and that language's name."""


def with_figures(notebook: NotebookNode) -> NotebookNode:
    """The notebook with each plotly figure as a div that plotly draws into."""
    for number, cell in enumerate(notebook.cells):
        for index, output in enumerate(cell.get("outputs", [])):
            data = output.get("data", {})
            if PLOTLY in data:
                spec = {**data[PLOTLY], "config": CONFIG}
                # "</" would end the script
                figure = json.dumps(spec, ensure_ascii=False).replace("</", "<\\/")
                height = spec.get("layout", {}).get("height", 400)
                html = render("figure.html", id=f"f{number}-{index}", height=height, figure=figure)
                output.data = NotebookNode({"text/html": html})
    return notebook


def page(path: Path, language: str) -> str:
    """One built notebook as HTML, with links to the index and to the other language."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(template_name="lab", require_js_url="", jquery_url="")
    exporter.language_code = language
    notebook = with_figures(read_built(path))
    resources = {"metadata": {"name": path.stem}}
    html, _ = exporter.from_notebook_node(notebook, resources)
    html = re.sub(r'(href="[^":]*)\.ipynb\b', r"\1.html", html)
    # MathJax comes from the network; async, so that an unreachable one does not block the page.
    html = html.replace('<script src="https:', '<script async src="https:')
    top = "../" if language == "zh" else ""
    html = html.replace("</head>", f'<script src="{top}{SCRIPT}"></script></head>', 1)
    links = render("links.html", heading=HEADINGS[language], other=other(language, path.stem))
    return re.sub(r"<body[^>]*>", lambda body: body[0] + links, html, count=1)


def other(language: str, name: str) -> dict:
    """Address of the page of this name in the other language, and that language's name."""
    folder, word = OTHER[language]
    return dict(address=f"{folder}{name}.html", name=word)


def ledger(path: Path) -> str | None:
    """The ledger's page with links to the site's notebooks; None if it does not exist."""
    if not path.exists():
        return None
    text = path.read_text(encoding="utf-8")
    return re.sub(r'(href=")\.\./notebooks/([^"]*)\.ipynb"', r'\1\2.html"', text)


def index(language: str, entries: list[dict], with_ledger: bool = False) -> str:
    """The list of pages in one language."""
    up = "../" if language == "zh" else ""
    return render(
        "index.html",
        language=language,
        heading=HEADINGS[language],
        other=other(language, "index"),
        pages=[dict(address=f"{e['name']}.html", title=e["title"][language]) for e in entries],
        ledger=dict(address=up + LEDGER, name=LEDGER_NAMES[language]) if with_ledger else None,
    )


def build_site(target: Path, *, folder: Path = NOTEBOOKS, say=print) -> Path:
    """Write all pages under `target`; returns the index."""
    from plotly.offline import get_plotlyjs

    entries = list(catalog(folder).values())
    write_atomically(target / SCRIPT, get_plotlyjs())
    ledger_page = ledger(folder.parent / "docs" / LEDGER)
    if ledger_page:
        write_atomically(target / LEDGER, ledger_page)
    for language in LANGUAGES:
        place = target / ("zh" if language == "zh" else "")
        for entry in entries:
            notebook = built_path(find(entry["name"], folder), language)
            write_atomically(place / f"{entry['name']}.html", page(notebook, language))
            say(f"{language} {entry['name']}.html")
        write_atomically(place / "index.html", index(language, entries, bool(ledger_page)))
    return target / "index.html"
