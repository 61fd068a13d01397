"""What the tests of lab share: English before and after each, and the bundles that it shows."""

import pytest

from efflab import lab
from efflab.base.busy import others
from efflab.lab import check as judge_and_show
from efflab.lab import notebook, text


@pytest.fixture(autouse=True)
def _english():
    lab.use_language("en")
    text.missing.clear()
    notebook.current.tries.clear()
    notebook.current.withheld.clear()
    others.clear()
    yield
    lab.use_language("en")
    text.missing.clear()
    judge_and_show.strict(False)


@pytest.fixture
def shown(monkeypatch):
    """The bundles that reach the page."""
    bundles = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, **place: bundles.append(bundle))
    return bundles
