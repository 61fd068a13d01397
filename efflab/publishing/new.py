"""`efflab new 17 running_sums`: a notebook with its room, texts, catalog entry and tests.

Once built it passes `make test NB=17`: it is an example to replace piece by piece. The templates
are in the folder `template`.
"""

import keyword
import re
from contextlib import suppress
from pathlib import Path

from efflab.base.files import update, write_atomically
from efflab.errors import require
from efflab.publishing.catalog import ROOT, sources
from efflab.publishing.ledger import claims
from efflab.publishing.pages import render

ROOM = ("__init__", "measure", "figures", "exercises", "verdicts")


def claims_of(number: str, root: Path = ROOT) -> list[str]:
    """The claims of data/claims.toml that get their verdict in this notebook."""
    return [name for name, claim in claims(root).items() if claim["notebook"] == number]


def files_for(number: str, name: str, root: Path) -> dict[Path, str]:
    """{path: text} of a new notebook's files, without its catalog entry."""
    room = root / "notebooks" / "efflab_rooms" / name
    templates = {room / f"{part}.py": f"{part}.py.in" for part in ROOM}
    templates |= {
        room / "zh.toml": "zh.toml.in",
        root / "notebooks" / "src" / f"{number}_{name}.py": "source.py.in",
        root / "tests" / "notebooks" / f"test_{name}.py": "test.py.in",
    }
    if not claims_of(number, root):
        del templates[room / "verdicts.py"]
    return {path: fill(template, number, name, root) for path, template in templates.items()}


def fill(template: str, number: str, name: str, root: Path) -> str:
    """A template with the notebook's number, name, title and claims."""
    title = name.replace("_", " ").capitalize()
    return render(template, number=number, name=name, title=title, claims=claims_of(number, root))


def with_entry(catalog: str, number: str, entry: str) -> str:
    """The catalog's text with one more entry, in the order of numbers."""
    heads = re.finditer(r'^\["(\d\d)"\]', catalog, re.MULTILINE)
    place = next((head.start() for head in heads if head[1] > number), None)
    if place is None:
        return f"{catalog.rstrip()}\n\n{entry}"
    return f"{catalog[:place]}{entry}\n{catalog[place:]}"


def new(number: str, name: str, *, root: Path = ROOT) -> list[Path]:
    """Write a new notebook's files and its catalog entry; returns where they are.

    A number or name that is taken or invalid is a `ValueError` before anything is written.
    """
    require(bool(re.fullmatch("[0-9]{2}", number)), "number", number, "two digits such as 17")
    is_name = bool(re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name))
    allowed = "small letters and digits with _ between words, such as running_sums"
    require(is_name and not keyword.iskeyword(name), "name", name, allowed)
    existing = sources(root / "notebooks")
    allowed = f"one not taken, unlike {', '.join(existing)}"
    require(number not in existing, "number", number, allowed)
    files = files_for(number, name, root)
    for path in [root / "notebooks" / "efflab_rooms" / name, *files]:
        there = path.relative_to(root).as_posix()
        require(not path.exists(), "name", name, f"one not taken, but {there} exists")
    catalog = root / "notebooks" / "catalog.toml"
    entry = fill("catalog.toml.in", number, name, root)
    try:
        for path, text in files.items():
            write_atomically(path, text)
        update(catalog, lambda text: with_entry(text or "", number, entry))
    except BaseException:  # a full disk, Ctrl-C: leave no half notebook behind
        for path in files:
            path.unlink(missing_ok=True)
        with suppress(OSError):
            (root / "notebooks" / "efflab_rooms" / name).rmdir()
        raise
    return [*files, catalog]
