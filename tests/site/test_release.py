"""The whole site, as `make site` builds it: every link, every page in a browser."""

import axe
import crawl
import pytest
from serving import DESK, PHONE, opened, serving

from efflab.publishing.site.build import build_site

pytestmark = pytest.mark.release
MOST_BYTES = 2e6
"""Of a notebook's page, beside what pages share."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return build_site(tmp_path_factory.mktemp("site"), say=lambda line: None).parent


def test_every_link_and_anchor_leads_somewhere(site):
    assert crawl.faults(site) == []


def test_no_page_is_too_heavy(site):
    sizes = {path.name: path.stat().st_size for path in site.rglob("*.html")}
    assert {name: size for name, size in sizes.items() if size > MOST_BYTES} == {}


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_every_page_opens_in_silence_and_fits(site, chromium, size):
    with serving(site) as home, opened(chromium, home, viewport=size) as page:
        for path in sorted(site.rglob("*.html")):
            name = path.relative_to(site).as_posix()
            page.goto(home + name)
            page.wait_for_load_state("networkidle")
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= size["width"], name
            assert axe.serious(page) == [], name
