"""Every claim on every machine: docs/ledger.html, a file of its own, and the site's page.

The file holds both languages, with a switch without JavaScript; on a phone the table becomes cards.
"""

from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from efflab.base.formats import LANGUAGES
from efflab.base.stored import figures_of
from efflab.lab.evidence import by_id, evidence_line, name_words, value_line
from efflab.lab.judge import read_rules
from efflab.lab.outcome import OUTCOMES, mark, outcome_words
from efflab.lab.text import speaking, tr
from efflab.lab.verdict import rule_line
from efflab.publishing.catalog import ROOT, built_path, catalog, find
from efflab.publishing.column import Column
from efflab.publishing.judging import chinese_texts, judge
from efflab.publishing.ledger import claims, own_texts
from efflab.publishing.pool import columns, due
from efflab.publishing.site.templates import NAMES, environment, outcome_class, render

INTRO = (
    "Each claim of the article has parts, and each part a rule. The same rule judges every "
    "machine's figures; a column that does not follow from its own figures is not taken in."
)
PART = "notebooks {numbers}: {n} of {all} claims"
OTHERS = "the other notebooks were built on another machine: {machines}"
SOURCES = {"built": "built notebooks", "run": "its own run"}


def html(root: Path = ROOT) -> str:
    """docs/ledger.html, whose links lead from docs/ to the notebooks."""

    def address(source: Path, language: str) -> str:
        return f"../{built_path(source, language).relative_to(root).as_posix()}"

    all_columns = columns(root)
    bodies = [_Body(all_columns, language, root, address).content() for language in LANGUAGES]
    with speaking("en"):
        page = environment().get_template("ledger/alone.html")
        return page.render(names=NAMES, bodies=bodies, **WORDS)


def site_page(language: str, root: Path = ROOT) -> str:
    """The site's page in one language, beside the notebooks' pages."""
    body = _Body(columns(root), language, root, lambda source, _: f"{source.stem}.html")
    return render("ledger.html", language, section="ledger", body=body.content(), **WORDS)


def deciding_figure(record: dict) -> str:
    """The first figure of a stored verdict, in the language in use: name, value and kind."""
    first = next(iter(by_id(figures_of(record).values()).values()))
    return evidence_line(first)


def differing_figures(records: list[dict]) -> list[str]:
    """The ids of the figures of those parts whose outcome differs between the machines."""
    parts: dict[str, list[dict]] = {}
    for part in (part for record in records for part in record["parts"]):
        parts.setdefault(part["id"], []).append(part)
    apart = [same for same in parts.values() if len({part["outcome"] for part in same}) > 1]
    return [figure["id"] for same in apart for part in same for figure in part["figures"]]


WORDS = dict(mark=mark, outcome_class=outcome_class, outcome_words=outcome_words)
WORDS |= dict(deciding_figure=deciding_figure, name_words=name_words, value_line=value_line)
"""The functions by which `web/templates/ledger` speaks the language in use."""


class _Body:
    """The page's content in one language, texts and links, for `web/templates/ledger`."""

    def __init__(self, columns: list[Column], language: str, root: Path, address: Callable):
        self.columns, self.language, self.root = columns, language, root
        self.address = address
        self.built = [column for column in columns if column.source == "built"]
        self.together = ChainMap(*(column.verdicts for column in self.built))
        self.written = set(due(root))
        self.known, self.catalog = claims(root), catalog(root / "notebooks")

    def content(self) -> dict:
        with speaking(self.language, own_texts()):
            head = dict(title=tr("The ledger over machines"), intro=tr(INTRO), claim=tr("claim"))
            machines = [dict(name=c.name, lines=self.lines(c)) for c in self.columns]
            if len(self.built) > 1:
                name = tr("built notebooks of {n} machines, counted together", n=len(self.built))
                machines.insert(0, dict(name=name, lines=self.outcomes(self.together)))
        head |= dict(language=self.language, machines=machines, rows=self.rows())
        return head | dict(columns=[column.name for column in self.columns])

    def lines(self, column: Column) -> list[str]:
        """A column's description: source, day and versions; whole or partial; outcome counts.

        Those of built notebooks are counted once, together, where several machines built them.
        """
        words = [tr(SOURCES[column.source]), column.date]
        words += [f"{k} {v}" for k, v in (column.versions or {}).items()]
        about = " · ".join(filter(None, words))
        others = [other.name for other in self.built if other is not column]
        if column.source != "built" or not others:
            return [about, *self.outcomes(column.verdicts)]
        numbers = sorted({self.known[claim]["notebook"] for claim in column.verdicts})
        values = dict(numbers=", ".join(numbers), n=len(column.verdicts), all=len(self.written))
        return [about, tr(PART, **values), tr(OTHERS, machines=tr("; ").join(others))]

    def outcomes(self, verdicts: Mapping[str, dict]) -> list[str]:
        """Whole or partial, and how many claims have each outcome."""
        n, n_all = len(verdicts), len(self.written)
        form = "whole: {n} claims" if n >= n_all else "partial: {n} of {all} claims"
        words = [record["outcome"] for record in verdicts.values()]
        counts = (f"{outcome_words(w, self.language)} {words.count(w)}" for w in OUTCOMES)
        return [tr(form, n=n, all=n_all), " · ".join(counts)]

    def rows(self) -> Iterator[dict]:
        """The table's rows: each section's name, followed by its claims.

        A row is drawn before the next is asked for, while its claim's texts are in use.
        """
        section = None
        for claim, about in self.known.items():
            texts = chinese_texts(claim, self.root) if claim in self.written else {}
            with speaking(self.language, texts | own_texts()):
                if about["section"] != section:
                    section = about["section"]
                    yield dict(section=tr("Section {section}", section=section))
                yield self.claim(claim, about)

    def claim(self, claim: str, about: dict) -> dict:
        """A claim's outcomes side by side, why they differ, and all of their figures."""
        records = [(c.name, c.verdicts.get(claim), self.absent(claim, c)) for c in self.columns]
        verdicts = [record for _, record, _ in records if record]
        evidence = [(name, by_id(figures_of(r).values())) for name, r, _ in records if r]
        values = dict(id=claim, about=about, records=records, language=self.language)
        values |= dict(notebook=self.notebook(about["notebook"]))
        values |= dict(anchor=claim if self.language == "en" else f"zh-{claim}")
        values |= dict(said={part["id"]: part[self.language] for part in about["parts"]})
        values |= dict(apart=differing_figures(verdicts), evidence=evidence)
        values |= dict(by_id=ChainMap(*(own for _, own in evidence)))
        values |= dict(figures=[key for _, own in evidence for key in own])
        return values | dict(rules=self.rules(claim, verdicts[0]) if verdicts else {})

    def absent(self, claim: str, column: Column) -> str:
        """What stands in a column that does not judge a claim."""
        if column.source == "built" and claim in self.together:
            return "built on another machine"
        return "missing" if claim in self.written else "not yet"

    def notebook(self, number: str) -> dict:
        """A notebook's name and, if it is written, its address."""
        if number not in self.catalog:
            return dict(name=tr("notebook {number}", number=number), address=None)
        source = find(number, self.root / "notebooks")
        name = f"{number} {self.catalog[number]['title'][self.language]}"
        return dict(name=name, address=self.address(source, self.language))

    def rules(self, claim: str, record: dict) -> dict[str, str]:
        """{part: its rule}, in the language in use."""
        outcome = judge(claim, figures_of(record).values(), self.root)
        rules = read_rules(self.root / "data" / "rules.toml")[claim]
        return {part.id: rule_line(part, rules[part.id]) for part in outcome.parts}
