"""`efflab site`: all pages in both languages, from what the notebooks' build stored."""

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from efflab.base.files import write_atomically
from efflab.base.formats import LANGUAGES
from efflab.base.json_files import read_json
from efflab.base.places import ROOT
from efflab.publishing import ledger_html
from efflab.publishing.catalog import NOTEBOOKS, built_path, catalog, find
from efflab.publishing.site import documents, first_page, notebook_pages, planner
from efflab.publishing.site.assets import Assets
from efflab.publishing.site.templates import STATIC, WEB, environment, other, render

NO_PACKAGES = "its npm packages are missing; where npm is, `make setup` fetches them"


def build_site(target: Path, *, folder: Path = NOTEBOOKS, say=print) -> Path:
    """Write all pages under `target`; returns the index."""
    from plotly.offline import get_plotlyjs

    assets = Assets(target)
    for path in STATIC.iterdir():
        assets.add(path.name, path.read_bytes())
    plotly = assets.add("plotly.min.js", get_plotlyjs().encode())
    live, linked = load_live_pages(assets, say), documents.linked_documents(folder)
    for language in LANGUAGES:
        place = target / ("zh" if language == "zh" else "")
        notebooks = dict(notebook_files(language, plotly, folder))
        pages = notebooks | {name: live_page(name, language, parts) for name, parts in live.items()}
        pages["index"] = first_page.write(language, notebooks, assets, folder)
        pages["ledger"] = ledger_html.site_page(language, folder.parent)
        for name in linked:
            pages[name] = documents.write(folder.parent / "docs" / f"{name}.md", language)
        for name, html in pages.items():
            write_atomically(place / f"{name}.html", html)
        say(f"{language}: {len(pages)} pages")
    worker = environment().get_template("sw.js").render(assets=sorted(assets.places))
    write_atomically(target / "sw.js", worker)
    write_atomically(target / "licences.txt", licences())
    assets.remove_others()
    return target / "index.html"


def licences() -> str:
    """What the pages carry, whose it is and under which terms it may be passed on."""
    from plotly.offline import get_plotlyjs_version

    npm = read_json(WEB / "package.json")["dependencies"]
    values = dict(onnxruntime=npm["onnxruntime-web"], pyodide=npm["pyodide"])
    values |= dict(own=(ROOT / "LICENSE").read_text(encoding="utf-8"))
    files = metadata.files("plotly") or []
    plotly_text = next(file.read_text() for file in files if file.name.startswith("LICENSE"))
    values |= dict(plotly=get_plotlyjs_version(), plotly_text=plotly_text)
    return environment().get_template("licences.txt").render(values)


def notebook_files(language: str, plotly: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Name and content of each notebook's page."""
    entries = catalog(folder)
    for entry in entries.values():
        path = built_path(find(entry["name"], folder), language)
        yield entry["name"], notebook_pages.write(path, language, entries, plotly)


# --- The pages that compute ------------------------------------------------------------------


def load_live_pages(assets: Assets, say=print) -> dict[str, dict | None]:
    """{page: what its template needs}, with its files added; None where packages are missing."""
    from efflab.publishing.site import playground  # and torch

    live = {"playground": playground.page_values(assets), "planner": planner.load(assets)}
    for name, parts in live.items():
        if parts is None:
            say(f"{name} left out: {NO_PACKAGES}")
    return live


def live_page(name: str, language: str, parts: dict | None) -> str:
    """A page that computes; where it was left out, one that says why."""
    if parts is None:
        values = dict(section=name, other=other(language, name), reason=NO_PACKAGES)
        return render("missing.html", language, **values)
    if name == "planner":
        return planner.write(language, parts)
    return render(f"{name}.html", language, section=name, **parts)
