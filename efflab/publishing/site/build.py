"""`efflab site`: all pages in both languages, from what the notebooks' build stored."""

import json
import re
from pathlib import Path

from nbformat import NotebookNode

from efflab.base.files import write_atomically
from efflab.base.formats import LANGUAGES, PLOTLY
from efflab.lab.page import CONFIG
from efflab.publishing.catalog import NOTEBOOKS, built_path, catalog, find
from efflab.publishing.site.assets import Assets
from efflab.publishing.site.templates import STATIC, environment, other, render
from efflab.publishing.source import read_built


def build_site(target: Path, *, folder: Path = NOTEBOOKS, say=print) -> Path:
    """Write all pages under `target`; returns the index."""
    entries, assets = list(catalog(folder).values()), Assets(target)
    for path in STATIC.iterdir():
        assets.add(path.name, path.read_bytes())
    for language in LANGUAGES:
        place = target / ("zh" if language == "zh" else "")
        write_notebooks(place, entries, language, folder, assets, say)
        write_atomically(place / "index.html", index(language, entries))
        page = ledger(folder.parent / "docs" / "ledger.html", language)
        write_atomically(place / "ledger.html", page)
    return target / "index.html"


def index(language: str, entries: list[dict]) -> str:
    """The first page: what there is."""
    pages = [dict(address=f"{e['name']}.html", title=e["title"][language]) for e in entries]
    depth = int(language == "zh")
    return render("index.html", language, depth, section="notebooks", pages=pages)


# --- Until their own modules write them ------------------------------------------------------


def write_notebooks(place: Path, entries, language: str, folder: Path, assets: Assets, say) -> None:
    """The notebooks' pages."""
    from plotly.offline import get_plotlyjs

    script = assets.add("plotly.min.js", get_plotlyjs().encode())
    for entry in entries:
        notebook = built_path(find(entry["name"], folder), language)
        write_atomically(place / f"{entry['name']}.html", page(notebook, language, script))
        say(f"{language} {entry['name']}.html")


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
                values = dict(id=f"f{number}-{index}", height=height, figure=figure)
                html = environment().get_template("figure.html").render(values)
                output.data = NotebookNode({"text/html": html})
    return notebook


def page(path: Path, language: str, script: str) -> str:
    """One built notebook as HTML, with links to the index and to the other language."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(template_name="lab", require_js_url="", jquery_url="")
    exporter.language_code = language
    notebook = with_figures(read_built(path))
    html, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": path.stem}})
    html = re.sub(r'(href="[^":]*)\.ipynb\b', r"\1.html", html)
    html = html.replace('<script src="https:', '<script async src="https:')
    top = "../" if language == "zh" else ""
    html = html.replace("</head>", f'<script src="{top}{script}"></script></head>', 1)
    link = other(language, path.stem)
    links = (
        f'<nav><a href="index.html">efflab</a> · '
        f'<a href="{link["address"]}">{link["name"]}</a></nav>'
    )
    return re.sub(r"<body[^>]*>", lambda body: body[0] + links, html, count=1)


def ledger(path: Path, language: str) -> str:
    """The ledger's page with links to the site's notebooks."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    up = "../" if language == "zh" else ""
    return re.sub(r'(href=")\.\./notebooks/([^"]*)\.ipynb"', rf'\1{up}\2.html"', text)
