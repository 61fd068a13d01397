"""`efflab new 16 running_sums`: a notebook with its room, texts, catalog entry and tests.

Once built it passes `make test NB=16`: it is an example to replace piece by piece. The templates
are in the folder `template`; `@NN@` in them becomes the number.
"""

import keyword
import re
import tomllib
from contextlib import suppress
from pathlib import Path

from efflab.base.files import update, write_atomically
from efflab.errors import require
from efflab.publishing.catalog import ROOT, sources

TEMPLATE = Path(__file__).with_name("template")
NONE = {
    "@CLAIMS_EN@": "none",
    "@CLAIMS_ZH@": "无",
    "@VERDICT_EN@": "No claim of the article is judged here.",
    "@VERDICT_ZH@": "文章没有论断在这里判定。",
    "@VERDICT_CELLS@": "",
    "@VERDICT_TEST@": "",
    "@VERDICTS@": "",
    "@IMPORT@": "",
}
"""Template values of a notebook that owns no claim."""
SOME = {
    "@VERDICT_EN@": "Each part of a claim by its rule in `data/rules.toml`.",
    "@VERDICT_ZH@": "论断的每一部分按 `data/rules.toml` 中的规则判定。",
    "@VERDICTS@": "verdicts ",
    "@IMPORT@": ", verdicts",
}
CELL = """\
# %% tags=["nbval-ignore-output"]
evidence = verdicts.example_evidence("{id}", speedup)
lab.verdict("{id}", verdicts.{function}(evidence))

"""


def fill(name: str, values: dict[str, str]) -> str:
    """A template with its `@...@` replaced by `values`."""
    text = (TEMPLATE / name).read_text(encoding="utf-8")
    for _ in range(2):  # a value may contain `@...@` itself
        for key, value in values.items():
            text = text.replace(key, value)
    return text


def function_of(claim: str) -> str:
    """The name of a claim's function in `verdicts.py`."""
    return claim.replace("-", "_")


def claims_of(number: str, root: Path = ROOT) -> list[str]:
    """The claims of data/claims.toml that get their verdict in this notebook."""
    claims = tomllib.loads((root / "data" / "claims.toml").read_text(encoding="utf-8"))
    return [name for name, claim in claims.items() if claim["notebook"] == number]


def values_for(number: str, name: str, claims: list[str]) -> dict[str, str]:
    """The values of the templates' `@...@`."""
    values = {"@CLAIMS@": str(claims).replace("'", '"'), "@NN@": number, "@NAME@": name}
    values |= {"@TITLE@": name.replace("_", " ").capitalize()} | NONE
    if not claims:
        return values
    names = [f"`{claim}`" for claim in claims]
    functions = [
        fill("verdict.py.in", {"@FUNCTION@": function_of(c), "@CLAIM@": c}) for c in claims
    ]
    calls = [CELL.format(id=c, function=function_of(c)) for c in claims]
    return (
        values
        | SOME
        | {
            "@CLAIMS_EN@": ", ".join(names),
            "@CLAIMS_ZH@": "、".join(names),
            "@FUNCTIONS@": "".join(functions).rstrip(),
            "@VERDICT_CELLS@": "".join(calls),
            "@VERDICT_TEST@": fill("verdict_test.py.in", {}),
        }
    )


def files_for(number: str, name: str, root: Path) -> dict[Path, str]:
    """{path: text} of a new notebook's files, without its catalog entry."""
    claims = claims_of(number, root)
    values, room = values_for(number, name, claims), root / "notebooks" / "efflab_rooms" / name
    texts = fill("zh.toml.in", values) + (fill("zh_verdicts.toml.in", {}) if claims else "")
    files = {
        root / "notebooks" / "src" / f"{number}_{name}.py": fill("source.py.in", values),
        room / "__init__.py": fill("room.py.in", values),
        room / "measure.py": fill("measure.py.in", values),
        room / "figures.py": fill("figures.py.in", values),
        room / "exercises.py": fill("exercises.py.in", values),
        room / "zh.toml": texts,
        root / "tests" / "notebooks" / f"test_{name}.py": fill("test.py.in", values),
    }
    if claims:
        files[room / "verdicts.py"] = fill("verdicts.py.in", values)
    return files


def with_entry(catalog: str, number: str, entry: str) -> str:
    """The catalog's text with one more entry, in the order of numbers."""
    later = [
        m.start() for m in re.finditer(r'^\["(\d\d)"\]', catalog, re.MULTILINE) if m[1] > number
    ]
    if not later:
        return f"{catalog.rstrip()}\n\n{entry}"
    return f"{catalog[: later[0]]}{entry}\n{catalog[later[0] :]}"


def new(number: str, name: str, *, root: Path = ROOT) -> list[Path]:
    """Write a new notebook's files and its catalog entry; returns where they are.

    A number or name that is taken or invalid is a `ValueError` before anything is written.
    """
    require(bool(re.fullmatch("[0-9]{2}", number)), "number", number, "two digits such as 16")
    is_name = bool(re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name))
    allowed = "small letters and digits with _ between words, such as running_sums"
    require(is_name and not keyword.iskeyword(name), "name", name, allowed)
    existing = sources(root / "notebooks")
    require(
        number not in existing, "number", number, f"one not taken, unlike {', '.join(existing)}"
    )
    files = files_for(number, name, root)
    for path in [root / "notebooks" / "efflab_rooms" / name, *files]:
        there = path.relative_to(root).as_posix()
        require(not path.exists(), "name", name, f"one not taken, but {there} exists")
    catalog = root / "notebooks" / "catalog.toml"
    entry = fill("catalog.toml.in", values_for(number, name, claims_of(number, root)))
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
