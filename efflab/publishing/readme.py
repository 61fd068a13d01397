"""`efflab report`: writes the README's tables between their markers, and the ledger's pages."""

from collections.abc import Callable, Mapping
from pathlib import Path

from efflab.base.files import update
from efflab.base.formats import OTHER
from efflab.lab.outcome import mark, outcome_words
from efflab.lab.text import speaking
from efflab.publishing import ledger, predictions_page
from efflab.publishing.catalog import ROOT, built_path, catalog, find
from efflab.publishing.judging import chinese_texts
from efflab.publishing.ledger_html import deciding_figure, html

START, END = "<!-- {}: start (efflab report writes this) -->", "<!-- {}: end -->"
NOTEBOOK_COLUMNS = {
    "en": ("", "notebook", "中文", "minutes", "what you find out"),
    "zh": ("", "笔记本", "English", "分钟", "你会弄清楚什么"),
}
NOT_YET = "—"
"""In place of an outcome and its figure, where the claim's notebook is not written yet."""


def notebooks(root: Path = ROOT, language: str = "en") -> str:
    """The table of notebooks from the catalog, with both editions, that of `language` first."""
    folder, rows = root / "notebooks", []
    for number, entry in catalog(folder).items():
        links = {
            x: f"[{title}]({built_path(find(number, folder), x).relative_to(root).as_posix()})"
            for x, title in entry["title"].items()
        }
        editions = links[language], links[OTHER[language]]
        rows.append((number, *editions, entry["minutes"], entry["finds"][language]))
    return ledger.table(NOTEBOOK_COLUMNS[language], rows)


def chinese_map(root: Path = ROOT) -> str:
    """The article's claims in Chinese: section, claim, outcome, deciding figure, notebook."""
    records, rows = ledger.verdicts(root), []
    for name, claim in ledger.claims(root).items():
        outcome = figure = NOT_YET
        if record := records.get(name):
            marks = "".join(mark(part["outcome"]) for part in record["parts"])
            outcome = f"{outcome_words(record['outcome'], 'zh')} {marks}"
            with speaking("zh", chinese_texts(name, root) | ledger.own_texts()):
                figure = deciding_figure(record)
        link = ledger.notebook_link(claim["notebook"], root, language="zh")
        rows.append((claim["section"], claim["claim"]["zh"], outcome, figure, link))
    return ledger.table(("节", "论断", "结论（逐部分）", "第一个数字", "笔记本"), rows)


TABLES = {
    "notebooks": notebooks,
    "ledger": ledger.short_ledger,
    "notebooks in Chinese": lambda root: notebooks(root, "zh"),
    "map in Chinese": chinese_map,
    "counts": ledger.counts,
    "counts in Chinese": lambda root: ledger.counts(root, "zh"),
}
"""Name of the README's markers -> function that makes the text between them."""
PREDICTIONS = {
    "predictions": predictions_page.freezes,
    "predictions in Chinese": lambda root: predictions_page.freezes(root, "zh"),
}
"""The same for docs/predictions.md."""


def update_section(text: str, name: str, content: str, page: str = "README.md") -> str:
    """A page's text with `content` between the markers of `name`, which must exist."""
    start, end = START.format(name), END.format(name)
    before, _, rest = text.partition(start)
    _, marker, after = rest.partition(end)
    if not marker:
        raise ValueError(f"{page}: expected the lines {start!r} and {end!r}")
    return f"{before}{start}\n{content}\n{end}{after}"


def readme(root: Path = ROOT) -> str:
    """The up-to-date text of README.md."""
    return _update_page(root, "README.md", TABLES)


def predictions(root: Path = ROOT) -> str:
    """The up-to-date text of docs/predictions.md."""
    return _update_page(root, "docs/predictions.md", PREDICTIONS)


def _update_page(root: Path, name: str, tables: Mapping[str, Callable[[Path], str]]) -> str:
    text = (root / name).read_text(encoding="utf-8")
    for section, make in tables.items():
        text = update_section(text, section, make(root), name)
    return text


def report(root: Path = ROOT, say=print) -> None:
    """Print the ledger, and bring README.md, docs/ledger.md and docs/ledger.html up to date."""
    say(ledger.short_ledger(root))
    pages = {"README.md": readme, "docs/ledger.md": ledger.page, "docs/ledger.html": html}
    pages["docs/predictions.md"] = predictions
    for name, text in [(name, make(root)) for name, make in pages.items()]:
        path = root / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            update(path, lambda _, make=pages[name]: make(root))
            say(f"{name} brought up to date")
