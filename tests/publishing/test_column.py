"""A column that travels: what is broken, forged or of another version is refused by name."""

import json
import re
from datetime import date, timedelta

import pytest
from ledgers import BIG, HERE, LESS, SMALL, bytes_under, column, figure

from efflab.publishing import column as columns
from efflab.publishing.catalog import ROOT
from efflab.publishing.column import Column, parse, read
from efflab.publishing.judging import judge
from efflab.publishing.ledger import verdicts
from efflab.publishing.pool import add

TOMORROW = date.today() + timedelta(days=1)


def written():
    return json.loads(column(LESS, SMALL).text())


def changed(*path, to):
    """A good column with one value changed, found by its path of keys and places."""
    body = written()
    where = body
    for key in path[:-1]:
        where = where[key]
    where[path[-1]] = to
    return json.dumps(body)


def with_figure(**given):
    body = written()
    more = figure("more", 1, kind="computed") | given
    body["verdicts"][0]["parts"][0]["figures"].append(more)
    return json.dumps(body)


GOOD = column(LESS, SMALL).text()
DEEP = "[" * 100_000 + "]" * 100_000
PART = ("verdicts", 0, "parts", 0)
FIGURES, HIGH = (*PART, "figures"), (*PART, "figures", 0)
OF_SMALL = ("verdicts", 1, "parts", 0, "figures")
BROKEN = {
    "no JSON": (GOOD[:-10], "content=.*: expected JSON in UTF-8"),
    "not UTF-8": (b"\xff\xfe{}", "content=.*: expected JSON in UTF-8"),
    "a list": ("[]", r"content=\[\]: expected an object"),
    "too deep": (DEEP, "content=.*: expected a depth of at most 40"),
    "NaN": (GOOD.replace("40.5", "NaN"), "number='NaN': expected a finite number"),
    "infinite": (GOOD.replace("40.5", "1e999"), "number='1e999': expected a finite number"),
    "out of range": (GOOD.replace("40.5", "9" * 400), "number='999.*': expected one that a"),
    "a key twice": (
        GOOD.replace('"outcome"', '"holds": null, "outcome"', 1),
        "key='holds': expected no key",
    ),
    "a key unknown": (changed("run", to="rm"), r"keys of column=\['run'\]: expected no other"),
    "a key lacking": (GOOD.replace('"date"', '"day"'), r"keys of column=\['day'\]"),
    "another schema": (changed("schema", to=4), "schema=4: expected 3, which `efflab ledger run`"),
    "a schema that is no number": (changed("schema", to=True), "schema=True: expected 3"),
    "a column without parts": (changed("schema", to=2), "schema=2: expected 3, which `efflab led"),
    "a column without ids": (changed("schema", to=1), "schema=1: expected 3, which `efflab led"),
    "another version": (changed("efflab", to="9.9"), r"efflab='9\.9': expected 0\.1\.0, the vers"),
    "no day": (changed("date", to="2026-02-30"), "date='2026-02-30': expected a day such as"),
    "a day to come": (changed("date", to="2999-01-01"), "expected a day that has come"),
    "two days ahead": (
        changed("date", to=(TOMORROW + timedelta(days=1)).isoformat()),
        "a day that has come",
    ),
    "a day in other digits": (changed("date", to="２０２６-11-20"), "expected a day such as"),
    "a version in words": (changed("versions", "python", to="the newest"), r"versions\.python="),
    "another instruction": (
        changed("machine", "features", "sse", to=True),
        r"keys of machine\.features=\['sse'\]",
    ),
    "a feature in words": (
        changed("machine", "features", "vnni", to="yes"),
        r"machine\.features\.vnni='yes'",
    ),
    "no threads": (changed("machine", "threads", to=0), r"machine\.threads=0: expected 1 to 4096"),
    "too many threads": (
        changed("machine", "threads", to=4097),
        r"machine\.threads=4097: expected 1 to 4096",
    ),
    "a name in two lines": (changed("machine", "cpu", to="a\nb"), r"machine\.cpu=.*one line"),
    "a name too long": (changed("machine", "cpu", to="a" * 101), "expected 1 to 100 characters"),
    "a version too long": (
        changed("versions", "torch", to="1" * 41),
        r"versions\.torch=.*1 to 40 characters",
    ),
    "no verdicts": (changed("verdicts", to=[]), r"verdicts=\[\]: expected a list of at least one"),
    "an invalid verdict": (changed("verdicts", 0, to=7), r"verdicts\.0=7: expected an object"),
    "an unknown claim": (changed("verdicts", 0, "claim", to="x"), "claim='x': expected one of da"),
    "an invalid claim": (changed("verdicts", 0, "claim", to=[]), r"claim=\[\]: expected one"),
    "a claim twice": (changed("verdicts", 1, to=LESS), "claim='big': expected one verdict"),
    "a claim not judged yet": (
        changed("verdicts", 1, "claim", to="later"),
        "claim='later': expected one whose notebook",
    ),
    "holds in words": (
        changed("verdicts", 0, "holds", to="no"),
        r"big\.holds='no': expected tr",
    ),
    "an unknown outcome": (
        changed("verdicts", 0, "outcome", to="perhaps"),
        r"verdicts\.big\.outcome='perhaps': expected one of",
    ),
    "an unknown outcome of a part": (
        changed(*PART, "outcome", to="holds in part"),
        r"big\.parts\.amount\.outcome='holds in part': expected one of",
    ),
    "a reason too long": (
        changed(*PART, "reason", to="a" * 2001),
        r"big\.parts\.amount\.reason=.*0 to 2,000 characters",
    ),
    "no parts": (
        changed("verdicts", 0, "parts", to=[]),
        r"big\.parts=\[\]: expected a list of 1 to",
    ),
    "an invalid part": (changed(*PART, to=7), r"big\.parts\.0=7: expected an object"),
    "a part with a script": (
        changed(*PART, "script", to="x"),
        r"keys of verdicts\.big\.parts\.amount=\['script'\]: expected no other",
    ),
    "an unknown basis": (changed(*PART, "basis", to="felt"), r"big\.parts\.amount\.basis='felt'"),
    "no figures": (
        changed(*FIGURES, to=[]),
        r"big\.parts\.amount\.figures=\[\]: expected a list of 1 to 60",
    ),
    "too many figures": (changed(*FIGURES, to=[BIG] * 61), "expected a list of 1 to 60"),
    "an invalid figure": (changed(*HIGH, to=None), r"amount\.figures\.0=None: expected an object"),
    "a figure with a script": (
        changed(*HIGH, "script", to="x"),
        r"keys of .*amount\.figures\.removed=\['script'\]",
    ),
    "an unknown kind": (changed(*HIGH, "kind", to="guessed"), r"figures\.removed\.kind='guessed'"),
    "a value in words": (
        changed(*HIGH, "value", to="40"),
        r"removed\.value='40': expected a",
    ),
    "a value that is true": (changed(*HIGH, "value", to=True), r"figures\.removed\.value=True"),
    "one end": (changed(*HIGH, "low", to=None), "big: removed, low=None: expected both ends"),
    "ends the wrong way": (
        changed(*HIGH, "low", to=43),
        r"big: removed=40\.5: expected a number in its interval, 43",
    ),
    "an id twice": (
        with_figure(id="removed"),
        "big: removed={.*: expected the same in all parts",
    ),
    "without a figure of the rule": (
        changed(*HIGH, "id", to="kept"),
        r"big: its figures are not those that its rule asks for \(Refusal: evidence of big=",
    ),
    "more digits than are stored": (
        changed(*HIGH, "value", to=40.1234567),
        "at most six significant",
    ),
}
FORGED = {
    "figures that say otherwise": (
        changed(*FIGURES, to=BIG["parts"][0]["figures"]),
        "big: outcome='holds in part': expected as its own figures .*: 'holds'",
    ),
    "an outcome that its figures do not give": (
        json.dumps(written() | {"verdicts": [LESS | dict(holds=True, outcome="holds")]}),
        "big: outcome='holds': expected as its own figures come to .*: 'holds in part'",
    ),
    "an outcome of a part that its figures do not give": (
        changed(*PART, "outcome", to="undecided"),
        "big: amount: outcome='undecided': expected as its own figures .*: 'does not hold'",
    ),
    "a rule of its own": (
        changed(*PART, "rule", to="always"),
        "big: amount: rule='always': .*: 'above 50%'",
    ),
    "a condition of its own": (
        changed(*PART, "condition", to="n > 1"),
        "big: amount: condition='n > 1': .*: ''",
    ),
    "a reason of its own": (
        changed(*PART, "reason", to="bad luck"),
        "big: amount: reason='bad luck': .*: 'it lies outside",
    ),
    "a remark of its own": (changed(*PART, "remark", to="buy"), "big: amount: remark='buy': .*''"),
    "a registration that is none": (
        changed(*PART, "basis", to="registered"),
        "big: amount: basis='registered': .*'exploratory'",
    ),
    "a day of its own": (changed(*PART, "since", to="2026-11-20"), "since='2026-11-20': .*None"),
    "a part left out": (
        changed("verdicts", 0, "parts", to=LESS["parts"][:1]),
        r"big: its figures are not those that its rule asks for",
    ),
    "parts in another order": (
        changed("verdicts", 0, "parts", to=LESS["parts"][::-1]),
        r"big: parts=\['length', 'amount'\]: expected",
    ),
    "another kind": (
        changed(*HIGH, "kind", to="recorded"),
        "big: its figures are not those .*kind of removed='recorded'",
    ),
    "another unit": (
        changed(*HIGH, "unit", to="x"),
        "big: amount: rule='above 50%': .*'above 50x'",
    ),
    "no interval": (
        changed(*HIGH, to=figure("removed", 40.5, "%")),
        "big: its figures are not those .*removed: low=None: expected an int",
    ),
    "an interval of its own": (
        changed(*OF_SMALL, 0, to=figure("bits", 3.5, "", "computed", 3, 4)),
        "small: bits: low=3: expected an interval where it has one here",
    ),
    "a value outside its interval": (
        changed(*HIGH, "value", to=38.5),
        r"removed=38\.5: expected a number in its interval, 39 to",
    ),
    "a figure more": (
        with_figure(),
        r"big: its figures are not those .*evidence of big=\['more'\]",
    ),
    "a figure left out": (
        changed(*OF_SMALL, to=SMALL["parts"][0]["figures"][:1]),
        r"small: its figures are not those .*expected \['printed'\] too",
    ),
    "another name": (
        changed(*HIGH, "name", to="kept"),
        "big: removed: name='kept': expected 'removed'",
    ),
    "a template of its own": (
        with_figure(id="removed-7", template="removed {n}", name="removed 7", values={"n": 7}),
        r"big: its figures are not those .*evidence of big=\['removed-7'\]",
    ),
    "a template that says something else": (
        changed(*HIGH, to=LESS["parts"][0]["figures"][0] | dict(template="{n}", values={"n": 7})),
        r"big: its figures are not those .* \(Refusal: name='removed': expected '7'\)",
    ),
    "a paper under another id": (
        changed(*OF_SMALL, 1, "id", to="written"),
        r"small: its figures are not those .*expected \['printed'\] too",
    ),
    "another figure first": (
        changed(*OF_SMALL, to=SMALL["parts"][0]["figures"][::-1]),
        r"small: few: figures=\['printed', 'bits'\]: expected",
    ),
    "a paper that printed something else": (
        changed(*OF_SMALL, 1, "value", to=8),
        "small: printed=8: expected 7, as pub",
    ),
}
REFUSED = BROKEN | FORGED


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_broken_or_forged_is_refused_and_changes_nothing(root, name):
    content, message = REFUSED[name]
    path = root / "theirs.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = bytes_under(root)
    with pytest.raises(ValueError, match=f"theirs.json: .*{message}") as refusal:
        add(path, root)
    assert len(str(refusal.value)) < 600  # a stranger's text is not quoted at length
    assert bytes_under(root) == before


def test_a_file_too_large_or_absent_is_refused_unread(root, monkeypatch):
    path = root / "theirs.json"
    with pytest.raises(ValueError, match=r"file=.*theirs.json': expected a file that `efflab led"):
        read(path, root)
    with pytest.raises(ValueError, match="expected a file that"):
        read(root, root)
    path.write_text(GOOD + " " * columns.MAX_BYTES, encoding="utf-8")
    monkeypatch.setattr(columns, "parse", lambda *_: pytest.fail("it was read"))
    with pytest.raises(ValueError, match=r"theirs.json: bytes=\d+: expected at most 1,000,000"):
        read(path, root)


def test_a_good_column_is_read_in_the_articles_order(root):
    body = written()
    body["verdicts"].reverse()
    body["date"] = TOMORROW.isoformat()  # it is later there
    found = parse(json.dumps(body).encode(), root)
    assert found == Column(
        body["machine"], body["date"], {"big": LESS, "small": SMALL}, "run", body["versions"]
    )
    assert parse(found.text().encode(), root) == found


def test_a_file_name_is_safe_whatever_the_machine_is_called():
    for cpu in ("../../etc/passwd", "CON", "", "处理器", "a" * 100, "x\\y:z|"):
        name = column(machine=HERE | dict(cpu=cpu)).file_name
        assert re.fullmatch(r"[a-z0-9-]{1,68}\.json", name)
        assert name != column(machine=HERE | dict(cpu=f"{cpu}!")).file_name


def test_a_machine_keeps_its_file_in_later_versions():
    assert column().file_name == "there-1-thread-486a0d.json"


@pytest.mark.parametrize("threads", [1, 4096])
def test_any_number_of_threads_that_a_machine_may_have_is_taken(root, threads):
    content = changed("machine", "threads", to=threads).encode()
    assert parse(content, root).machine["threads"] == threads


# --- The real rules --------------------------------------------------------------------------


def test_every_stored_verdict_would_be_taken_from_elsewhere():
    machine = HERE | dict(features=column().machine["features"])
    found = verdicts()
    again = parse(column(*found.values(), machine=machine).text().encode())
    assert again.verdicts == found


@pytest.mark.parametrize("claim", verdicts())
def test_a_rule_that_lacks_its_figures_decides_nothing(claim):
    strange = [figure("nobody-asked", 1.5, kind="computed")]
    with pytest.raises(ValueError, match=f"{claim}: its figures are not those that its rule asks"):
        judge(claim, strange)


def test_a_forged_outcome_of_the_real_ledger_is_refused():
    record = verdicts()["albert-params"]
    forged = record | dict(holds=True, outcome="holds")
    machine = HERE | dict(features=column().machine["features"])
    with pytest.raises(ValueError, match=r"albert-params: outcome='holds': .*'holds in part'"):
        parse(column(forged, machine=machine).text().encode(), ROOT)
