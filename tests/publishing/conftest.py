"""A repository with a toy ledger, and the browser."""

import ledgers
import pytest
from browser import chromium, lab, lab_folder  # noqa: F401 - fixtures


@pytest.fixture
def root(toy, monkeypatch):
    """A repository with two verdicts of three claims, judged by the toy's rules."""
    return ledgers.fill_repository(toy, monkeypatch)
