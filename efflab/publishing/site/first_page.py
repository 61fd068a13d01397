"""The site's first page: the notebooks as cards, and what its search looks through."""

import base64
import io
import json
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path

from efflab.base.formats import PICTURE
from efflab.lab.outcome import mark, outcome_words
from efflab.publishing.catalog import NOTEBOOKS, built_path, catalog, find
from efflab.publishing.ledger import claims, counts, verdicts
from efflab.publishing.outputs import of_kind
from efflab.publishing.site.assets import Assets
from efflab.publishing.site.playground import read_strip
from efflab.publishing.site.templates import outcome_class, render
from efflab.publishing.source import read_built

WIDTH = 640
"""Pixels of a card's picture, twice what a card is wide."""
HEADINGS = {"h1", "h2", "h3", "h4"}
UNREAD = {"script", "style", "pre", "math", "svg", "nav", "button"}
CONTAINERS = {"main", *HEADINGS, *UNREAD}
"""Elements that matter to the search; code and formulas are not looked through."""
INLINE = {"a", "em", "strong", "b", "i", "code", "span", "sub", "sup", "mark"}


def write(language: str, pages: Mapping[str, str], assets: Assets, folder: Path = NOTEBOOKS) -> str:
    """index.html in one language; `pages`: the notebooks' pages by name, for the search."""
    root = folder.parent
    judged, known, cards = verdicts(root), claims(root), []
    for number, entry in catalog(folder).items():
        own = [name for name, claim in known.items() if claim["notebook"] == number]
        marks = [_claim(known[name], judged[name], language) for name in own if name in judged]
        image = _picture(built_path(find(number, folder), language), entry, language, assets)
        cards.append(_card(number, entry, language) | dict(claims=marks, picture=image))
    values = dict(section="notebooks", cards=cards, search=_search_file(pages, language, assets))
    values |= dict(n_claims=len(judged), counts=counts(root, language), strip=read_strip())
    return render("index.html", language, **values)


def _card(number: str, entry: dict, language: str) -> dict:
    texts = dict(title=entry["title"][language], finds=entry["finds"][language])
    return texts | dict(number=number, address=f"{entry['name']}.html", minutes=entry["minutes"])


def _claim(claim: dict, record: dict, language: str) -> dict:
    """A claim's line on its card: words, outcome, mark and colour."""
    outcome, short = record["outcome"], claim.get("short")
    words = short if short and language == "en" else claim["claim"][language]
    said = dict(words=words, outcome=outcome_words(outcome, language), mark=mark(outcome))
    return said | dict(css=outcome_class(outcome), id=record["claim"])


# --- Pictures --------------------------------------------------------------------------------


def _picture(path: Path, entry: dict, language: str, assets: Assets) -> dict | None:
    """Address and size of the card's picture, a figure of the built notebook; None without one."""
    from PIL import Image

    pictures = of_kind(read_built(path), PICTURE)
    if not pictures:
        return None
    picture = base64.b64decode(pictures[entry.get("card", 0)])
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
    image.save(packed := io.BytesIO(), "WEBP", quality=78, method=6)
    address = assets.add(f"{entry['name']}-{language}.webp", packed.getvalue())
    return dict(address=address, width=image.width, height=image.height)


# --- Search ----------------------------------------------------------------------------------


class _Passages(HTMLParser):
    """The text below each heading of a page's main part: [its id, its words, text]."""

    def __init__(self):
        super().__init__()
        self.found: list[list[str]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attributes):
        if tag in CONTAINERS:
            self.open.append(tag)
        if tag in HEADINGS:
            self.found.append([dict(attributes).get("id") or "", "", ""])
        elif self.found and tag not in INLINE:
            self.found[-1][2] += " "

    def handle_endtag(self, tag):
        if tag in CONTAINERS and tag in self.open:
            self.open.pop()

    def handle_data(self, data):
        # a lone mark links to its own heading
        is_read = "main" in self.open and self.found and not UNREAD & {*self.open}
        if is_read and data not in ("¶", "#"):
            self.found[-1][1 if HEADINGS & {*self.open} else 2] += data


def passages(html: str) -> list[list[str]]:
    """[id, heading, text] of each part of a page."""
    reader = _Passages()
    reader.feed(html)
    parts = ([anchor, *(" ".join(t.split()) for t in texts)] for anchor, *texts in reader.found)
    return [part for part in parts if part[1]]


def _search_file(pages: Mapping[str, str], language: str, assets: Assets) -> str:
    """Address of the script that holds all texts, loaded when the reader begins to search."""
    texts = {f"{name}.html": passages(html) for name, html in pages.items()}
    # a script and no JSON: it also loads where the page was opened from disk
    content = f"window.efflabTexts = {json.dumps(texts, ensure_ascii=False)};"
    return assets.add(f"search-{language}.js", content.encode())
