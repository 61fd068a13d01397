"""docs/ledger.html: every claim on every machine, in one file that asks the network for nothing.

Both languages are in it and a switch that needs no script; on a phone the table becomes cards.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path

from efflab.formats import LANGUAGES
from efflab.lab import text
from efflab.lab.text import tr, use_language, use_texts
from efflab.lab.verdict import OUTCOMES, by_id, name_words, outcome_words, value_line
from efflab.publishing.catalog import ROOT, built_path, catalog, find
from efflab.publishing.column import Column
from efflab.publishing.judging import chinese_texts, judged, turning
from efflab.publishing.ledger import claims
from efflab.publishing.pool import columns, due

INTRO = (
    "Each claim of the article has a rule that was fixed before the numbers were known. The same "
    "rule judges every machine's figures; a column that does not follow from its own figures is "
    "not taken in."
)
TEXTS = {
    "The ledger over machines": "各机器的总账",
    INTRO: (
        "文章的每条论断都有一条规则，在得到数字之前就已定下。每台机器的数字都由同一条规则判定；"
        "结论与自身数字不符的列不予收录。"
    ),
    "claim": "论断",
    "figure": "数字",
    "built notebooks": "随仓库构建的笔记本",
    "its own run": "在该机器上运行",
    "from records of experiments": "取自实验存档",
    "partial: {n} of {all} claims": "不完整：{all} 条论断中的 {n} 条",
    "whole: {n} claims": "完整：{n} 条论断",
    "Section {section}": "第 {section} 节",
    "missing": "缺",
    "not yet": "尚未写成",
    "Rule and all figures": "规则与全部数字",
    "Rule: {rule}": "规则：{rule}",
    "They differ. What turns the outcome:": "结论不同。使结论改变的是：",
    "{name}: {value}": "{name}：{value}",
    "notebook {number}": "笔记本 {number}",
}
SOURCES = {
    "built": "built notebooks",
    "run": "its own run",
    "records": "from records of experiments",
}
SWITCH = {"en": "English", "zh": "中文"}
CSS = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, "Noto Sans CJK SC", sans-serif; max-width: 76rem;
  margin: 0 auto; padding: 1rem; overflow-wrap: anywhere }
body > input { position: absolute; opacity: 0 }
body > label { display: inline-block; padding: .2rem .8rem; border: 1px solid var(--line);
  border-radius: 1rem; cursor: pointer }
#to-en:checked ~ [for=to-en], #to-zh:checked ~ [for=to-zh] { font-weight: bold;
  background: var(--soft) }
#to-en:focus-visible ~ [for=to-en], #to-zh:focus-visible ~ [for=to-zh] { outline: 2px solid }
#to-en:checked ~ [lang=zh]:not(label), #to-zh:checked ~ [lang=en]:not(label) { display: none }
h1 { font-size: 1.6rem; margin: 1rem 0 .5rem }
.machines { display: flex; flex-wrap: wrap; gap: .8rem; padding: 0; list-style: none }
.machines li { flex: 1 1 17rem; border: 1px solid var(--line); border-radius: .5rem;
  padding: .6rem .9rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .55rem .7rem; font-weight: normal;
  border-top: 1px solid var(--line) }
thead th { font-weight: bold; border: 0 }
.ledger > tbody > tr > th { width: 34% }
.section th { font-weight: bold; padding-top: 1.6rem; border: 0 }
.why td, .all td { border: 0; padding-top: 0 }
.why > td > div { border-left: .3rem solid #CC79A7; background: var(--soft);
  padding: .5rem .9rem; border-radius: .3rem }
.outcome { font-weight: bold; white-space: nowrap }
.outcome span { display: inline-block; width: 1.3em }
.none, small { opacity: .75 }
small { display: block }
.figures th, .figures td { border-top: 1px solid var(--line); padding: .3rem .7rem .3rem 0;
  font-size: .92rem }
.figures thead th { border: 0 }
.figures th { width: 40% }
.figures thead th ~ th { width: auto }
.all > td { padding-bottom: .8rem }
summary { cursor: pointer; opacity: .8 }
p { margin: .4rem 0 }
@media (max-width: 600px) {
  table, tbody, tr, th, td { display: block }
  thead { display: none }
  .ledger > tbody > tr > th { width: auto }
  th, td { padding: .2rem 0; border: 0 }
  .claim { border-top: 1px solid var(--line); padding-top: .8rem }
  .claim td { margin: .5rem 0; padding-left: .7rem; border-left: .2rem solid var(--line) }
  td[data-machine]::before { content: attr(data-machine); display: block; font-size: .8rem;
    opacity: .75 }
  .figures th { width: auto; padding: .5rem 0 0 }
  .figures td { border: 0; padding: 0 0 .2rem .7rem }
  .all > td { padding-bottom: .8rem }
  .section th { padding-bottom: .5rem; font-size: 1.1rem }
}
"""


def html(root: Path = ROOT) -> str:
    """The page, whose links lead from docs/ to the notebooks."""
    shown = columns(root)
    bodies = [_Body(shown, language, root).html() for language in LANGUAGES]
    switch = "".join(
        f'<input type="radio" name="language" id="to-{x}"{" checked" if x == "en" else ""}>'
        f'<label for="to-{x}" lang="{x}">{word}</label> '
        for x, word in SWITCH.items()
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>efflab</title>\n<style>{CSS}</style></head><body>\n{switch}\n"
        + "\n".join(bodies)
        + "\n</body></html>\n"
    )


@contextmanager
def speaking(language: str, texts: dict[str, str]) -> Iterator[None]:
    """`tr` in one language with these texts; afterwards in the language before, without them."""
    before = text.language()
    use_language(language)
    use_texts(texts)
    try:
        yield
    finally:
        use_language(before)
        use_texts({})


class _Body:
    """The page's content in one language."""

    def __init__(self, shown: list[Column], language: str, root: Path):
        self.columns, self.language, self.root = shown, language, root
        self.written = set(due(root))
        self.known, self.catalog = claims(root), catalog(root / "notebooks")

    def html(self) -> str:
        with speaking(self.language, TEXTS):
            machines = "".join(f"<li>{self.machine(column)}</li>" for column in self.columns)
            head = f"<h1>{tr('The ledger over machines')}</h1><p>{tr(INTRO)}</p>"
            names = "".join(f"<th>{escape(column.name)}</th>" for column in self.columns)
            table_head = f"<thead><tr><th>{tr('claim')}</th>{names}</tr></thead>"
        rows = "\n".join(self.rows())
        return (
            f'<main lang="{self.language}">{head}<ul class="machines">{machines}</ul>\n'
            f'<table class="ledger">{table_head}<tbody>\n{rows}\n</tbody></table></main>'
        )

    def machine(self, column: Column) -> str:
        """What a column is: machine, source, day, whole or partial, outcomes counted."""
        n, n_all = len(column.verdicts), len(self.written)
        form = "whole: {n} claims" if n >= n_all else "partial: {n} of {all} claims"
        found = [record["outcome"] for record in column.verdicts.values()]
        counts = " · ".join(
            f"{outcome_words(word, self.language)} {found.count(word)}" for word in OUTCOMES
        )
        told = [tr(SOURCES[column.source]), column.date]
        told += [f"{k} {v}" for k, v in (column.versions or {}).items()]
        lines = [" · ".join(filter(None, told)), tr(form, n=n, all=n_all), counts]
        small = "".join(f"<small>{escape(line)}</small>" for line in lines)
        return f"<b>{escape(column.name)}</b>{small}"

    def rows(self) -> list[str]:
        """The table's rows, a claim after another, under its section."""
        section, rows = None, []
        for claim, about in self.known.items():
            texts = chinese_texts(claim, self.root) if claim in self.written else {}
            with speaking(self.language, texts | TEXTS):
                if about["section"] != section:
                    section = about["section"]
                    head = tr("Section {section}", section=section)
                    rows.append(f'<tr class="section"><th colspan="{self.width}">{head}</th></tr>')
                rows += self.claim(claim, about)
        return rows

    @property
    def width(self) -> int:
        return len(self.columns) + 1

    def claim(self, claim: str, about: dict) -> Iterator[str]:
        """A claim's outcomes side by side, why they differ, and all that they rest on."""
        found = [column.verdicts.get(claim) for column in self.columns]
        cells = "".join(map(self.cell, self.columns, [claim] * len(found)))
        said = escape(about["claim"][self.language])
        where = f"<small>{escape(claim)} · {self.notebook(about['notebook'])}</small>"
        yield f'<tr class="claim"><th scope="row">{said}{where}</th>{cells}</tr>'
        held = [record for record in found if record]
        if not held:
            return
        rule = escape(tr("Rule: {rule}", rule=self.words(claim, held[0])["rule"]))
        ids = [key for record in held[1:] if record["outcome"] != held[0]["outcome"]
               for key in turning(claim, held[0], record, self.root)]  # fmt: skip
        if ids:
            lead = tr("They differ. What turns the outcome:")
            table = self.figures(claim, list(dict.fromkeys(ids)))
            yield self.wide("why", f"<div><b>{lead}</b>{table}<p>{rule}</p></div>")
        every = [figure["id"] for record in held for figure in record["figures"]]
        table = self.figures(claim, list(dict.fromkeys(every)))
        summary = tr("Rule and all figures")
        yield self.wide(
            "all", f"<details><summary>{summary}</summary><p>{rule}</p>{table}</details>"
        )

    def wide(self, name: str, content: str) -> str:
        return f'<tr class="{name}"><td colspan="{self.width}">{content}</td></tr>'

    def notebook(self, number: str) -> str:
        if number not in self.catalog:
            return tr("notebook {number}", number=number)
        title = escape(self.catalog[number]["title"][self.language])
        path = built_path(find(number, self.root / "notebooks"), self.language)
        address = escape(f"../{path.relative_to(self.root).as_posix()}")
        return f'<a href="{address}">{number} {title}</a>'

    def cell(self, column: Column, claim: str) -> str:
        """One outcome, with its condition or reason and the figure on which it turns."""
        machine = f'data-machine="{escape(column.name)}"'
        record = column.verdicts.get(claim)
        if record is None:
            word = tr("missing") if claim in self.written else tr("not yet")
            return f'<td class="none" {machine}>{word}</td>'
        words = self.words(claim, record)
        _, _, mark, colour = OUTCOMES[record["outcome"]]
        outcome = outcome_words(record["outcome"], self.language)
        first = next(iter(by_id(record["figures"]).values()))
        said = tr("{name}: {value}", name=name_words(first), value=value_line(first))
        return (
            f'<td {machine}><div class="outcome"><span style="color:{colour}">{mark}</span>'
            f"{outcome}</div>{escape(words['condition'] or words['reason'])}"
            f"<small>{escape(said)}</small></td>"
        )

    def words(self, claim: str, record: dict) -> dict[str, str]:
        """Rule, condition and reason in the language in use."""
        outcome = judged(claim, record["figures"], self.root)
        keys = ("rule", "condition", "reason")
        return {key: tr(getattr(outcome, key), **outcome.values) for key in keys}

    def figures(self, claim: str, ids: list[str]) -> str:
        """The figures of these ids, the machines that have the claim side by side."""
        held = [column for column in self.columns if claim in column.verdicts]
        by = [by_id(column.verdicts[claim]["figures"]) for column in held]
        machines = [escape(column.name) for column in held]
        head = "".join(f"<th>{machine}</th>" for machine in machines)
        labels = [f' data-machine="{machine}"' if machines[1:] else "" for machine in machines]
        rows = []
        for key in ids:
            name = name_words(next(found[key] for found in by if key in found))
            values = [value_line(found[key]) if key in found else tr("missing") for found in by]
            cells = "".join(
                f"<td{label}>{escape(value)}</td>"
                for label, value in zip(labels, values, strict=True)
            )
            rows.append(f"<tr><th>{escape(name)}</th>{cells}</tr>")
        return (
            f'<table class="figures">'
            f"<thead><tr><th>{tr('figure')}</th>{head}</tr></thead>"
            f"<tbody>{''.join(rows)}</tbody></table>"
        )
