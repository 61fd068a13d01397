"""The templates: what they are given is text, unless one piece of script says otherwise."""

import re

import pytest
from jinja2 import UndefinedError

from efflab.publishing import pages
from efflab.publishing.catalog import ROOT
from efflab.publishing.pages import render

FOLDER = ROOT / "efflab" / "publishing" / "pages"
HOSTILE = "'\"><script>alert(1)</script>{{ 7 * 7 }}"
ESCAPED = "&#39;&#34;&gt;&lt;script&gt;alert(1)&lt;/script&gt;{{ 7 * 7 }}"


def test_every_value_is_text():
    where = dict(address=HOSTILE, name=HOSTILE)
    page = render("links.html", heading=HOSTILE, other=where)
    assert page.count(ESCAPED) == 3
    assert "<script" not in page
    told = dict(language=HOSTILE, heading=HOSTILE, other=where, ledger=where)
    page = render("index.html", **told, pages=[dict(address=HOSTILE, title=HOSTILE)])
    assert page.count(ESCAPED) == 8
    assert "<script" not in page


def test_a_value_that_is_not_given_is_an_error():
    with pytest.raises(UndefinedError, match="'other' is undefined"):
        render("links.html", heading="The notebooks")


def test_a_figures_name_cannot_leave_its_script():
    div = render("figure.html", id="</script>", height='1"><b>', figure="{}")
    assert div.count("</script>") == 1
    assert "<b>" not in div


def test_nothing_but_a_figures_json_goes_in_as_it_is():
    texts = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.html")}
    assert texts.keys() == {f"{n}.html" for n in "figure index ledger ledger_rows links".split()}
    raw = [name for name, text in texts.items() if re.search(r"\|\s*safe|autoescape|Markup", text)]
    assert raw == ["figure.html"]
    assert texts["figure.html"].count("|safe") == 1
    assert all(pages._environment().autoescape(name) for name in texts)
    style = (FOLDER / "ledger.css").read_text(encoding="utf-8")
    assert not re.search("{[{%#]", style)  # it is included as a template
