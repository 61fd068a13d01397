"""`efflab site`: all pages in both languages, from what the notebooks' build stored."""

from collections.abc import Iterator
from pathlib import Path

from efflab.base.files import write_atomically
from efflab.base.formats import LANGUAGES
from efflab.publishing import ledger_html
from efflab.publishing.catalog import NOTEBOOKS, built_path, catalog, find
from efflab.publishing.site import first_page, notebook_pages
from efflab.publishing.site.assets import Assets
from efflab.publishing.site.templates import STATIC, environment, other, render

NO_PACKAGES = "its npm packages are missing; where npm is, `make setup` fetches them"


def build_site(target: Path, *, folder: Path = NOTEBOOKS, say=print) -> Path:
    """Write all pages under `target`; returns the index."""
    from plotly.offline import get_plotlyjs

    assets = Assets(target)
    for path in STATIC.iterdir():
        assets.add(path.name, path.read_bytes())
    plotly = assets.add("plotly.min.js", get_plotlyjs().encode())
    live = load_live_pages(assets, say)
    for language in LANGUAGES:
        place = target / ("zh" if language == "zh" else "")
        notebooks = dict(notebook_files(language, plotly, folder))
        pages = notebooks | live_pages(language, live)
        pages["index"] = first_page.write(language, notebooks, assets, folder)
        pages["ledger"] = ledger_html.site_page(language, folder.parent)
        for name, html in pages.items():
            write_atomically(place / f"{name}.html", html)
        say(f"{language}: {len(pages)} pages")
    worker = environment().get_template("sw.js").render(assets=sorted(assets.places))
    write_atomically(target / "sw.js", worker)
    assets.remove_others()
    return target / "index.html"


def notebook_files(language: str, plotly: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Name and content of each notebook's page."""
    entries = catalog(folder)
    for entry in entries.values():
        path = built_path(find(entry["name"], folder), language)
        yield entry["name"], notebook_pages.write(path, language, entries, plotly)


# --- The pages that compute ------------------------------------------------------------------


def load_live_pages(assets: Assets, say=print) -> dict[str, dict | None]:
    """{page: what it is made of}, its files being added; None where packages are missing."""
    live: dict[str, dict | None] = {"playground": None, "planner": None}
    for name, parts in live.items():
        if parts is None:
            say(f"{name} left out: {NO_PACKAGES}")
    return live


def live_pages(language: str, live: dict[str, dict | None]) -> dict[str, str]:
    """{page: its content}; a page that says why, in place of one that is left out."""
    pages = {}
    for name, parts in live.items():
        if parts is None:
            values = dict(section=name, other=other(language, name), reason=NO_PACKAGES)
            pages[name] = render("missing.html", language, int(language == "zh"), **values)
    return pages
