"""The notebooks as web pages that need no kernel: `efflab site`.

Figures stay interactive and share one plotly.min.js, so that a page is small and works offline.
"""

import json
import re
from html import escape
from pathlib import Path

from nbformat import NotebookNode

from efflab.files import write_atomically
from efflab.formats import LANGUAGES, PLOTLY
from efflab.lab.page import CONFIG
from efflab.publishing.catalog import NOTEBOOKS, built_path, catalog, find
from efflab.publishing.source import read_built

SCRIPT = "plotly.min.js"
HEADINGS = {"en": "The notebooks", "zh": "全部笔记本"}
LEDGER, LEDGER_NAMES = "ledger.html", {"en": "The ledger", "zh": "总账"}
OTHER = {"en": ("zh/index.html", "中文"), "zh": ("../index.html", "English")}


def with_figures(notebook: NotebookNode) -> NotebookNode:
    """The notebook with each plotly figure as a div that plotly draws into."""
    for number, cell in enumerate(notebook.cells):
        for index, output in enumerate(cell.get("outputs", [])):
            data = output.get("data", {})
            if PLOTLY in data:
                output.data = NotebookNode({"text/html": figure_div(f"f{number}-{index}", data)})
    return notebook


def figure_div(name: str, data: dict) -> str:
    """A div, and the call that draws the figure with its frames; "</" would end the script."""
    spec = {**data[PLOTLY], "config": CONFIG}
    figure = json.dumps(spec, ensure_ascii=False).replace("</", "<\\/")
    height = spec.get("layout", {}).get("height", 400)
    div = f'<div id="{name}" style="height:{height}px;background:#fff"></div>'
    return f"{div}<script>Plotly.newPlot({json.dumps(name)}, {figure})</script>"


def page(path: Path, language: str) -> str:
    """One built notebook as HTML, with ways back to the index and to the other language."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(template_name="lab", require_js_url="", jquery_url="")
    exporter.language_code = language
    notebook = with_figures(read_built(path))
    resources = {"metadata": {"name": path.stem}}
    html, _ = exporter.from_notebook_node(notebook, resources)
    html = re.sub(r'(href="[^":]*)\.ipynb\b', r"\1.html", html)
    # MathJax is on the network, which may be slow to say that it is not there.
    html = html.replace('<script src="https:', '<script async src="https:')
    top = "../" if language == "zh" else ""
    html = html.replace("</head>", f'<script src="{top}{SCRIPT}"></script></head>', 1)
    address, name = OTHER[language]
    other = address.replace("index.html", f"{path.stem}.html")
    links = f'<a href="index.html">{HEADINGS[language]}</a> · <a href="{other}">{name}</a>'
    nav = f'<nav style="font:15px system-ui,sans-serif;padding:12px 24px">{links}</nav>'
    return re.sub(r"<body[^>]*>", lambda body: body[0] + nav, html, count=1)


def ledger(path: Path) -> str | None:
    """The ledger's page with links to the site's notebooks; None where there is none."""
    if not path.exists():
        return None
    text = path.read_text(encoding="utf-8")
    return re.sub(r'(href=")\.\./notebooks/([^"]*)\.ipynb"', r'\1\2.html"', text)


def index(language: str, entries: list[dict], with_ledger: bool = False) -> str:
    """The list of pages in one language."""
    items = "\n".join(
        f'<li><a href="{e["name"]}.html">{escape(e["title"][language])}</a></li>' for e in entries
    )
    address, name = OTHER[language]
    up = "../" if language == "zh" else ""
    more = f'<p><a href="{up}{LEDGER}">{LEDGER_NAMES[language]}</a></p>' if with_ledger else ""
    return (
        f'<!doctype html><html lang="{language}"><meta charset="utf-8"><title>efflab</title>'
        f'<body style="font:16px/1.6 system-ui,sans-serif;max-width:40em;margin:3em auto">'
        f'<h1>efflab</h1><p><a href="{address}">{name}</a></p>'
        f"<h2>{HEADINGS[language]}</h2><ol>\n{items}\n</ol>{more}</body></html>\n"
    )


def build_site(target: Path, *, folder: Path = NOTEBOOKS, say=print) -> Path:
    """Write all pages under `target`; returns the index."""
    from plotly.offline import get_plotlyjs

    entries = list(catalog(folder).values())
    write_atomically(target / SCRIPT, get_plotlyjs())
    judged = ledger(folder.parent / "docs" / LEDGER)
    if judged:
        write_atomically(target / LEDGER, judged)
    for language in LANGUAGES:
        place = target / ("zh" if language == "zh" else "")
        for entry in entries:
            notebook = built_path(find(entry["name"], folder), language)
            write_atomically(place / f"{entry['name']}.html", page(notebook, language))
            say(f"{language} {entry['name']}.html")
        write_atomically(place / "index.html", index(language, entries, bool(judged)))
    return target / "index.html"
