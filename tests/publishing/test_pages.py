"""The templates: what they are given is text."""

import re

import pytest
from jinja2 import UndefinedError

from efflab.publishing import pages
from efflab.publishing.catalog import ROOT
from efflab.publishing.site.templates import STATIC, WEB, environment, render

PACKAGE = ROOT / "efflab"
FOLDERS = PACKAGE / "publishing" / "pages", PACKAGE / "lab" / "cards", WEB / "templates"
HOSTILE = "'\"><script>alert(1)</script>{{ 7 * 7 }}"
ESCAPED = "&#39;&#34;&gt;&lt;script&gt;alert(1)&lt;/script&gt;{{ 7 * 7 }}"


def test_every_value_is_text():
    values = dict(section="notebooks", other=dict(address=HOSTILE, name=HOSTILE))
    page = render("missing.html", "en", reason=HOSTILE, **values)
    assert page.count(ESCAPED) == 3
    assert "alert(1)</script" not in page


def test_a_value_that_is_not_given_is_an_error():
    with pytest.raises(UndefinedError, match="'section' is undefined"):
        render("missing.html", "en", reason="r")


def test_nothing_goes_in_as_it_is():
    found = [path for folder in FOLDERS for path in folder.rglob("*.html")]
    texts = {path.name: path.read_text(encoding="utf-8") for path in found}
    raw = [name for name, text in texts.items() if re.search(r"\|\s*safe|autoescape|Markup", text)]
    assert not raw
    for jinja in (environment(), pages.environment()):
        assert all(jinja.autoescape(name) for name in texts)
    for name in ("colours.css", "ledger.css"):  # included as templates
        assert not re.search("[{][{%#]", (STATIC / name).read_text(encoding="utf-8"))
