"""A toy ledger for tests: three claims, the rules of two, and columns of machines."""

import json
import tomllib
from functools import partial

from efflab.lab import judge
from efflab.publishing import judging, ledger_html, readme
from efflab.publishing.column import Column

CLAIMS = """\
[big]
section = "1.1"
notebook = "90"
short = "A | B"
claim.en = "A or B, told at length."
claim.zh = "甲或乙。"

[[big.parts]]
id = "amount"
en = "Over half is removed."
zh = "移除过半。"

[[big.parts]]
id = "length"
en = "There are over 1,000 tokens."
zh = "词元超过 1,000 个。"

[small]
section = "1.2"
notebook = "90"
claim.en = "C."
claim.zh = "丙。"

[[small.parts]]
id = "few"
en = "One bit is enough."
zh = "一比特就够。"

[later]
section = "2"
notebook = "91"
claim.en = "D."
claim.zh = "丁。"

[[later.parts]]
id = "some"
en = "E."
zh = "戊。"
"""
RULES = """\
[big.amount]
basis = "sampled"
cases = ["removed"]
test = "above"
bar = 50
kinds = ["measured"]

[big.length]
basis = "formula"
cases = ["tokens"]
test = "above"
bar = 1000
kinds = ["recorded"]

[small.few]
basis = "formula"
cases = ["bits"]
shows = ["printed"]
test = "no more"
bar = 1
kinds = ["computed", "published"]
"""
CATALOG = """\
["90"]
name = "90_toy"
title = { en = "A toy", zh = "玩具" }
minutes = 5
finds.en = "that it works"
finds.zh = "它能用"
claims = ["big", "small"]
"""
ANOTHER = """
["91"]
name = "91_another"
title = { en = "Another", zh = "又一个" }
claims = ["later"]
"""
LATER = """
[later.some]
basis = "formula"
cases = ["bits"]
test = "no more"
bar = 1
kinds = ["computed"]
"""
CHINESE = {"removed": "移除", "tokens": "词元", "bits": "比特", "printed": "印出的"}
HERE = dict(cpu="Here", features=None, threads=2)
THERE = dict(
    cpu="There", features=dict.fromkeys(("avx2", "avx512", "vnni", "amx", "bf16"), False), threads=1
)


def rule(claim, root):
    """The toy's verdict function of a claim."""
    rules = tomllib.loads(RULES).get(claim)
    if rules is None:
        raise ValueError(f"claim={claim!r}: expected one whose notebook is written")
    return partial(judge, claim, rules=rules)


def figure(id, value, unit="", kind="measured", low=None, high=None):
    """What a record stores of a number whose name is its id."""
    return dict(id=id, name=id, value=value, unit=unit, kind=kind, low=low, high=high)


def record(claim, *figures):
    """What a verdict on these figures stores."""
    return rule(claim, None)(figures).record(claim)


SMALL = record(
    "small", figure("bits", 3.5, kind="computed"), figure("printed", 7, kind="published")
)
TOKENS = figure("tokens", 4608, "tokens", "recorded", 4608, 4608)
BIG = record("big", figure("removed", 71.234, "%", low=70.1, high=72.4), TOKENS)
LESS = record("big", figure("removed", 40.5, "%", low=39, high=42), TOKENS)


def column(*records, machine=THERE):
    """A column as `efflab ledger run` writes it."""
    versions = dict(python="3.11.7", torch="2.13.0+cpu")
    found = {r["claim"]: r for r in records}
    return Column(machine, "2026-11-20", found, versions=versions)


def store(root, verdicts):
    (root / "data" / "verdicts.json").write_text(json.dumps(verdicts), encoding="utf-8")


def bytes_under(folder):
    """{path: content} of all files of a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def build_another(root, monkeypatch):
    """Notebook 91, which judges the claim `later`, built on another machine than 90."""
    monkeypatch.setitem(globals(), "RULES", RULES + LATER)
    (root / "data" / "rules.toml").write_text(RULES, encoding="utf-8")
    catalog, builds = root / "notebooks" / "catalog.toml", root / "data" / "builds.json"
    catalog.write_text(catalog.read_text(encoding="utf-8") + ANOTHER, encoding="utf-8")
    source = root / "notebooks" / "src" / "90_toy.py"
    source.with_name("91_another.py").write_bytes(source.read_bytes())
    later = record("later", figure("bits", 3.5, kind="computed"))
    store(root, {"90": [BIG, SMALL], "91": [later]})
    own = dict(seconds=1.0, peak_mb=1, machine=THERE, date="2026-11-20")
    entries = json.loads(builds.read_text(encoding="utf-8")) | {"91 en": own}
    builds.write_text(json.dumps(entries), encoding="utf-8")


MARKERS = "\n\n".join(
    f"{readme.START.format(name)}\nold\n{readme.END.format(name)}" for name in readme.TABLES
)


def fill_repository(toy, monkeypatch):
    """The folder above the toy's notebooks as a repository with two verdicts of three claims."""
    root, data = toy.parent, toy.parent / "data"
    (toy / "catalog.toml").write_text(CATALOG, encoding="utf-8")
    data.mkdir(exist_ok=True)
    (data / "claims.toml").write_text(CLAIMS, encoding="utf-8")
    (data / "rules.toml").write_text(RULES, encoding="utf-8")
    built = {"90 en": dict(seconds=1.0, peak_mb=1, machine=HERE, date="2026-11-26")}
    (data / "builds.json").write_text(json.dumps(built), encoding="utf-8")
    (root / "README.md").write_text(f"before\n{MARKERS}\nafter\n", encoding="utf-8")
    sections = (f"{readme.START.format(n)}\n\n{readme.END.format(n)}" for n in readme.PREDICTIONS)
    (root / "docs").mkdir(exist_ok=True)
    (root / "docs" / "predictions.md").write_text("\n".join(sections), encoding="utf-8")
    store(root, {"90": [SMALL, BIG]})
    monkeypatch.setattr(judging, "rule", rule)
    for module in (ledger_html, readme):
        monkeypatch.setattr(module, "chinese_texts", lambda claim, root: CHINESE)
    return root
