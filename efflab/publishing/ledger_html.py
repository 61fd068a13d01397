"""docs/ledger.html: every claim on every machine, in one file that works offline.

It holds both languages, with a switch without JavaScript; on a phone the table becomes cards.
"""

from pathlib import Path

from efflab.base.formats import LANGUAGES
from efflab.base.stored import figures_of
from efflab.lab.evidence import by_id, name_words, value_line
from efflab.lab.judge import read_rules
from efflab.lab.outcome import OUTCOMES, mark, outcome_words
from efflab.lab.text import speaking, tr
from efflab.lab.verdict import rule_line
from efflab.publishing.catalog import ROOT, built_path, catalog, find
from efflab.publishing.column import Column
from efflab.publishing.judging import chinese_texts, judge
from efflab.publishing.ledger import claims, own_texts
from efflab.publishing.pages import render
from efflab.publishing.pool import columns, due

INTRO = (
    "Each claim of the article has parts, and each part a rule. The same rule judges every "
    "machine's figures; a column that does not follow from its own figures is not taken in."
)
SOURCES = {"built": "built notebooks", "run": "its own run"}
SWITCH = {"en": "English", "zh": "中文"}


def html(root: Path = ROOT) -> str:
    """The page, whose links are relative to docs/."""
    all_columns = columns(root)
    bodies = [_Body(all_columns, language, root).content() for language in LANGUAGES]
    return render("ledger.html", switch=SWITCH, bodies=bodies)


def deciding_figure(record: dict) -> str:
    """The first figure of a stored verdict, in the language in use: name, value and kind."""
    first = next(iter(by_id(figures_of(record).values()).values()))
    return tr("{name}: {value}", name=name_words(first), value=value_line(first))


def differing_figures(records: list[dict]) -> list[str]:
    """The ids of the figures of those parts whose outcome differs between the machines."""
    parts: dict[str, list[dict]] = {}
    for part in (part for record in records for part in record["parts"]):
        parts.setdefault(part["id"], []).append(part)
    apart = [same for same in parts.values() if len({part["outcome"] for part in same}) > 1]
    return [figure["id"] for same in apart for part in same for figure in part["figures"]]


class _Body:
    """The page's content in one language, texts and links, for `pages/ledger.html`."""

    def __init__(self, columns: list[Column], language: str, root: Path):
        self.columns, self.language, self.root = columns, language, root
        self.written = set(due(root))
        self.known, self.catalog = claims(root), catalog(root / "notebooks")

    def content(self) -> dict:
        with speaking(self.language, own_texts()):
            head = dict(title=tr("The ledger over machines"), intro=tr(INTRO), claim=tr("claim"))
            machines = [dict(name=c.name, lines=self.lines(c)) for c in self.columns]
        return head | dict(language=self.language, machines=machines, rows=self.rows())

    def lines(self, column: Column) -> list[str]:
        """A column's description: source, day and versions; whole or partial; outcome counts."""
        n, n_all = len(column.verdicts), len(self.written)
        form = "whole: {n} claims" if n >= n_all else "partial: {n} of {all} claims"
        outcomes = [record["outcome"] for record in column.verdicts.values()]
        counts = " · ".join(
            f"{outcome_words(word, self.language)} {outcomes.count(word)}" for word in OUTCOMES
        )
        words = [tr(SOURCES[column.source]), column.date]
        words += [f"{k} {v}" for k, v in (column.versions or {}).items()]
        return [" · ".join(filter(None, words)), tr(form, n=n, all=n_all), counts]

    def rows(self) -> list[dict]:
        """The table's rows: each section's name, followed by its claims."""
        section, rows = None, []
        for claim, about in self.known.items():
            texts = chinese_texts(claim, self.root) if claim in self.written else {}
            with speaking(self.language, texts | own_texts()):
                if about["section"] != section:
                    section = about["section"]
                    rows.append(dict(section=tr("Section {section}", section=section)))
                rows.append(self.claim(claim, about))
        return rows

    def claim(self, claim: str, about: dict) -> dict:
        """A claim's outcomes side by side, why they differ, and all of their figures."""
        row = dict(id=claim, said=about["claim"][self.language])
        row |= dict(notebook=self.notebook(about["notebook"]))
        row |= dict(cells=[self.cell(column, claim) for column in self.columns])
        row |= dict(why=None, every=None)
        verdicts = [c.verdicts[claim] for c in self.columns if claim in c.verdicts]
        if not verdicts:
            return row
        ids = differing_figures(verdicts)
        every = [key for record in verdicts for key in figures_of(record)]
        return row | dict(
            rules=self.rules(claim, verdicts[0]),
            differ=tr("They differ. The figures of the parts that do:"),
            why=self.figures(claim, ids) if ids else None,
            summary=tr("Rule and all figures"),
            every=self.figures(claim, every),
        )

    def notebook(self, number: str) -> dict:
        """A notebook's name and, if it is written, its address."""
        if number not in self.catalog:
            return dict(name=tr("notebook {number}", number=number), address=None)
        path = built_path(find(number, self.root / "notebooks"), self.language)
        name = f"{number} {self.catalog[number]['title'][self.language]}"
        return dict(name=name, address=f"../{path.relative_to(self.root).as_posix()}")

    def cell(self, column: Column, claim: str) -> dict:
        """One outcome, with its condition or reason and the deciding figure."""
        record = column.verdicts.get(claim)
        if record is None:
            word = tr("missing") if claim in self.written else tr("not yet")
            return dict(machine=column.name, none=word)
        _, _, _, colour = OUTCOMES[record["outcome"]]
        said = {p["id"]: p[self.language] for p in self.known[claim]["parts"]}
        words = [(part["outcome"], said[part["id"]]) for part in record["parts"]]
        parts = [(mark(word), OUTCOMES[word][3], statement) for word, statement in words]
        return dict(
            machine=column.name,
            none=None,
            mark=mark(record["outcome"]),
            colour=colour,
            outcome=outcome_words(record["outcome"], self.language),
            parts=parts,
            figure=deciding_figure(record),
        )

    def rules(self, claim: str, record: dict) -> list[str]:
        """Statement and rule of each part, in the language in use."""
        said = {p["id"]: p[self.language] for p in self.known[claim]["parts"]}
        outcome = judge(claim, figures_of(record).values(), self.root)
        rules = read_rules(self.root / "data" / "rules.toml")[claim]
        lines = {part.id: rule_line(part, rules[part.id]) for part in outcome.parts}
        return [tr("{part}: {rule}", part=said[key], rule=line) for key, line in lines.items()]

    def figures(self, claim: str, ids: list[str]) -> dict:
        """The figures with these ids, each once, with a column per machine that has the claim."""
        columns = [column for column in self.columns if claim in column.verdicts]
        by = [by_id(figures_of(column.verdicts[claim]).values()) for column in columns]
        rows = [
            (
                name_words(next(f[key] for f in by if key in f)),
                [value_line(f[key]) if key in f else tr("missing") for f in by],
            )
            for key in dict.fromkeys(ids)
        ]
        return dict(figure=tr("figure"), machines=[column.name for column in columns], rows=rows)
