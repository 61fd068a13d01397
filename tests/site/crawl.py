"""Where the links and assets of a built site lead, without a browser."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ADDRESSES = {"href", "src", "data-texts", "poster"}


class Page(HTMLParser):
    """A page's ids, and its addresses as (tag, address)."""

    def __init__(self, path: Path):
        super().__init__()
        self.ids, self.addresses = set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id":
                self.ids.add(value)
            if name in ADDRESSES and value:
                self.addresses.append((tag, value))


def faults(folder: Path) -> list[str]:
    """Dead links and anchors under `folder`, and what another host would be asked for."""
    pages = {path: Page(path) for path in sorted(folder.rglob("*.html"))}
    wrong = []
    for path, page in pages.items():
        found = [*page.addresses, *searched(path, page)]
        lines = (fault(path, tag, address, pages) for tag, address in found)
        wrong += [f"{path.relative_to(folder)}: {line}" for line in lines if line]
    for path in folder.rglob("*.css"):
        if re.search(r"url\(['\"]?(?!data:)|@import", path.read_text(encoding="utf-8")):
            wrong.append(f"{path.name} loads something")
    return wrong


def searched(path: Path, page: Page) -> list[tuple[str, str]]:
    """The links that a page's search can show."""
    scripts = [address for tag, address in page.addresses if "/search-" in address]
    links = []
    for address in scripts:
        text = (path.parent / address).read_text(encoding="utf-8")
        texts = json.loads(text.partition(" = ")[2].removesuffix(";"))
        links += [("a", f"{name}#{at}") for name, parts in texts.items() for at, *_ in parts if at]
    return links


def fault(path: Path, tag: str, address: str, pages: dict[Path, Page]) -> str | None:
    """What is wrong with one address of the page at `path`; None if nothing is."""
    parts = urlsplit(address)
    if parts.scheme in ("http", "https"):
        return None if tag == "a" else f"<{tag}> asks {address}"
    if parts.scheme in ("data", "mailto"):
        return None
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not target.exists():
        return f"no {address}"
    ids = pages[target].ids if target in pages else set()
    # "#bits=4" is a state of the page and no place on it
    if "=" in parts.fragment or target not in pages:
        return None
    if parts.fragment and not {parts.fragment, unquote(parts.fragment)} & ids:
        return f"no anchor {address}"
    return None
