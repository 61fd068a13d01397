"""The notebooks' pages."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from nbformat import NotebookNode

from efflab.base.formats import PLOTLY
from efflab.lab.page import CONFIG
from efflab.publishing.site.templates import environment, other
from efflab.publishing.source import read_built


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


def write(path: Path, language: str, entries: Mapping[str, Mapping], plotly: str) -> str:
    """One built notebook as HTML, with links to the index and to the other language."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(template_name="lab", require_js_url="", jquery_url="")
    exporter.language_code = language
    notebook = with_figures(read_built(path))
    html, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": path.stem}})
    html = re.sub(r'(href="[^":]*)\.ipynb\b', r"\1.html", html)
    html = html.replace('<script src="https:', '<script async src="https:')
    top = "../" if language == "zh" else ""
    html = html.replace("</head>", f'<script src="{top}{plotly}"></script></head>', 1)
    link = other(language, path.stem)
    links = (
        f'<nav><a href="index.html">efflab</a> · '
        f'<a href="{link["address"]}">{link["name"]}</a></nav>'
    )
    return re.sub(r"<body[^>]*>", lambda body: body[0] + links, html, count=1)
