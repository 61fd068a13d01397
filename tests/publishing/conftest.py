"""A repository with a toy ledger, and the browser."""

import json

import ledgers
import pytest
from browser import chromium, lab, lab_folder  # noqa: F401 - fixtures

from efflab.publishing import judging, ledger_html, readme

MARKERS = "\n\n".join(
    f"{readme.START.format(name)}\nold\n{readme.END.format(name)}" for name in readme.TABLES
)


@pytest.fixture
def root(toy, monkeypatch):
    """A repository with two verdicts of three claims, judged by the toy's rules."""
    (toy / "catalog.toml").write_text(ledgers.CATALOG, encoding="utf-8")
    data = toy.parent / "data"
    data.mkdir()
    (data / "claims.toml").write_text(ledgers.CLAIMS, encoding="utf-8")
    (data / "rules.toml").write_text(ledgers.RULES, encoding="utf-8")
    built = {"90 en": dict(seconds=1.0, peak_mb=1, machine=ledgers.HERE, date="2026-11-26")}
    (data / "builds.json").write_text(json.dumps(built), encoding="utf-8")
    (toy.parent / "README.md").write_text(f"before\n{MARKERS}\nafter\n", encoding="utf-8")
    ledgers.store(toy.parent, {"90": [ledgers.SMALL, ledgers.BIG]})
    monkeypatch.setattr(judging, "rule", ledgers.rule)
    for module in (ledger_html, readme):
        monkeypatch.setattr(module, "chinese_texts", lambda claim, root: ledgers.CHINESE)
    return toy.parent
