"""`efflab site`: all pages in both languages, from what the notebooks' build stored."""

import re
from pathlib import Path

from efflab.base.files import write_atomically
from efflab.base.formats import LANGUAGES
from efflab.publishing.catalog import NOTEBOOKS, built_path, catalog, find
from efflab.publishing.site import notebook_pages
from efflab.publishing.site.assets import Assets
from efflab.publishing.site.templates import STATIC, render


def build_site(target: Path, *, folder: Path = NOTEBOOKS, say=print) -> Path:
    """Write all pages under `target`; returns the index."""
    entries, assets = list(catalog(folder).values()), Assets(target)
    for path in STATIC.iterdir():
        assets.add(path.name, path.read_bytes())
    for language in LANGUAGES:
        place = target / ("zh" if language == "zh" else "")
        write_notebooks(place, language, folder, assets, say)
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


def write_notebooks(place: Path, language: str, folder: Path, assets: Assets, say) -> None:
    """The notebooks' pages."""
    from plotly.offline import get_plotlyjs

    entries, script = catalog(folder), assets.add("plotly.min.js", get_plotlyjs().encode())
    for entry in entries.values():
        notebook = built_path(find(entry["name"], folder), language)
        page = notebook_pages.write(notebook, language, entries, script)
        write_atomically(place / f"{entry['name']}.html", page)
        say(f"{language} {entry['name']}.html")


def ledger(path: Path, language: str) -> str:
    """The ledger's page with links to the site's notebooks."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    up = "../" if language == "zh" else ""
    return re.sub(r'(href=")\.\./notebooks/([^"]*)\.ipynb"', rf'\1{up}\2.html"', text)
