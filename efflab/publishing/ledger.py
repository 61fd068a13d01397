"""The ledger: every verdict of the built notebooks, by claim, from `data/verdicts.json`.

The README shows one short line per claim, with the deciding figure; `docs/ledger.md` shows all.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from efflab.base.stored import figures_of, read_verdicts
from efflab.base.toml_files import read_toml
from efflab.errors import require
from efflab.experiments.provenance import machine_name
from efflab.lab.outcome import BASES, TEXTS, Outcome, Part, mark, outcome_words
from efflab.lab.text import number, speaking, tr, with_unit
from efflab.publishing.catalog import ROOT, built_path, catalog, find
from efflab.publishing.pages import render
from efflab.publishing.usage import read_builds

# --- Reading ---------------------------------------------------------------------------------


def own_texts() -> dict[str, str]:
    """{English: Chinese} of the ledger's own texts."""
    return read_toml(Path(__file__).with_name("zh.toml"))


def claims(root: Path = ROOT) -> dict[str, dict]:
    """data/claims.toml: {id: {section, notebook, claim: {en, zh}, parts, perhaps short}}."""
    return read_toml(root / "data" / "claims.toml")


def verdicts(root: Path = ROOT) -> dict[str, dict]:
    """{claim id: its record}, in the article's order.

    An invalid record, an unknown claim, or one judged twice or in a notebook that does not own it
    is a `ValueError`.
    """
    known, by_claim = claims(root), {}
    for notebook, records in read_verdicts(root / "data" / "verdicts.json").items():
        for record in records:
            claim = record["claim"]
            require(claim in known, "claim", claim, "one of data/claims.toml")
            owner = known[claim]["notebook"]
            require(notebook == owner, f"notebook of {claim}", notebook, f"its owner, {owner}")
            require(claim not in by_claim, "claim", claim, "one verdict")
            _require_outcome(record)
            by_claim[claim] = record
    return {claim: by_claim[claim] for claim in known if claim in by_claim}


def statements(root: Path = ROOT) -> tuple[dict[str, dict], dict[str, dict]]:
    """What notebooks state beside the claims, as in data/statements.toml, and {id: its record}."""
    texts, path = root / "data" / "statements.toml", root / "data" / "statements.json"
    if not path.exists():
        return {}, {}
    records = {r["claim"]: r for own in read_verdicts(path).values() for r in own}
    for record in records.values():
        _require_outcome(record)
    return read_toml(texts), records


def _require_outcome(record: dict) -> None:
    """Refuse a record whose word, texts and figures do not agree, as an `Outcome` would store."""
    claim = record["claim"]
    try:
        again = stored_outcome(record).record(claim)
        figures_of(record)
    except (TypeError, ValueError) as error:
        raise ValueError(f"verdicts.json: {claim}: {error}; run efflab build") from error
    for key in ("holds", "outcome"):
        require(record[key] == again[key], f"{claim}: {key}", record[key], f"{again[key]!r}")


def stored_outcome(record: Mapping) -> Outcome:
    """The outcome of a stored record, with its texts as they are."""
    parts = []
    for part in record["parts"]:
        texts = {key: part[key].replace("{", "{{").replace("}", "}}") for key in TEXTS}
        figures, more = tuple(part["figures"]), {key: part[key] for key in ("basis", "since")}
        parts.append(Part(part["id"], part["outcome"], figures, part["rule"], **texts, **more))
    return Outcome(tuple(parts))


# --- Words -----------------------------------------------------------------------------------


def interval_words(figure: dict) -> str:
    """ "70 to 72.4", or "" without an interval and for an exact count."""
    low, high = figure["low"], figure["high"]
    return "" if low == high else f"{number(low)} to {number(high)}"


def figure_words(figure: dict) -> str:
    """ "removed: 71.2% (70 to 72.4), computed"."""
    value, ends = with_unit(figure["value"], figure["unit"]), interval_words(figure)
    return f"{figure['name']}: {value}{f' ({ends})' if ends else ''}, {figure['kind']}"


def short_claim(claim: dict) -> str:
    """The claim in a few English words."""
    return claim.get("short", claim["claim"]["en"]).rstrip(".")


# --- The README's lines ----------------------------------------------------------------------


def table(head: tuple[str, ...], rows) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(c) for c in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def short_ledger(root: Path = ROOT) -> str:
    """One line per claim: the claim, its outcome and parts, the deciding figure, the notebook."""
    known, rows = claims(root), []
    for name, record in verdicts(root).items():
        marks = " ".join(f"{mark(part['outcome'])} {part['id']}" for part in record["parts"])
        cells = [short_claim(known[name]), f"{outcome_words(record['outcome'])}: {marks}"]
        figure = figure_words(record["parts"][0]["figures"][0])
        rows.append((*cells, figure, known[name]["notebook"]))
    return table(("claim", "outcome, part by part", "the first figure", "notebook"), rows)


def counts(root: Path = ROOT, language: str = "en") -> str:
    """How many parts hold, do not, and are undecided, over all claims; and what they rest on."""
    records = verdicts(root).values()
    parts = [part for record in records for part in record["parts"]]
    words = [part["outcome"] for part in parts]
    bases = [part["basis"] for part in parts]
    numbers = dict(claims=len(records), parts=len(parts))
    numbers |= dict(yes=words.count("holds"), perhaps=words.count("holds if"))
    numbers |= dict(no=words.count("does not hold"), open=words.count("undecided"))
    numbers |= {basis: bases.count(basis) for basis in BASES}
    with speaking(language, own_texts()):
        return tr(COUNTS, **numbers)


COUNTS = (
    "{claims} claims in {parts} parts: {yes} hold, {perhaps} hold if a condition is met, "
    "{no} do not, {open} are undecided. {formula} rest on formulas and exact counts, {table} on "
    "published tables; of the sampled ones {registered} were registered before their numbers, "
    "{exploratory} are exploratory."
)


# --- The ledger's own page -------------------------------------------------------------------


def page(root: Path = ROOT) -> str:
    """docs/ledger.md: every verdict, part by part, with rules and all figures; then our own
    statements."""
    functions = dict(mark=mark, words=outcome_words, with_unit=with_unit, interval=interval_words)
    links = {number: notebook_link(number, root, "../") for number in catalog(root / "notebooks")}
    said, judged = statements(root)
    known, records = claims(root) | said, verdicts(root) | judged
    values = dict(claims=known, verdicts=records, links=links, cell=_cell)
    values |= dict(machines=built_on({known[name]["notebook"] for name in records}, root))
    return render("ledger.md", **values, **functions)


def built_on(notebooks: Iterable[str], root: Path = ROOT) -> dict[str, list[str]]:
    """{machine in one line: the notebooks that it built, by their numbers}."""
    builds = read_builds(root / "data" / "builds.json")
    machines: dict[str, list[str]] = {}
    for key in sorted(notebooks):
        build = builds.get(f"{key} en")
        name = machine_name(build["machine"]) if build else "an unknown machine"
        machines.setdefault(name, []).append(key)
    return machines


def notebook_link(number: str, root: Path, up: str = "", language: str = "en") -> str:
    """ "[01 Parameter sharing](notebooks/01_parameter_sharing.ipynb)"; the number if unwritten.

    `up`: how the address begins in a page that does not stand in `root`.
    """
    entry = catalog(root / "notebooks").get(number)
    if entry is None:
        return number
    target = built_path(find(number, root / "notebooks"), language).relative_to(root).as_posix()
    return f"[{number} {entry['title'][language]}]({up}{target})"
