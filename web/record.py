"""docs/playground.webp and .zh.webp: the README's moving pictures, from the real page.

Once `efflab site` has built it: python web/record.py
"""

import io
import threading
from collections.abc import Iterator

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from efflab.base.files import replacing
from efflab.base.places import ROOT
from efflab.publishing.doctor import BROWSER_ADVICE, find_browser
from efflab.publishing.site.server import make_server

SITE = ROOT / "build" / "site"
STATES = (
    *("", "bits=8", "bits=6", "bits=5", "bits=4", "bits=3", "bits=2", "bits=3", "bits=4"),
    *("bits=4&prune=0.2", "bits=4&prune=0.4", "bits=4&prune=0.5", "bits=4&prune=0.2"),
    *("bits=4&prune=0.2&window=64", "bits=4&prune=0.2&window=16", "bits=4&prune=0.2&window=4"),
    *("bits=4&prune=0.2&window=16", "bits=4"),
)
"""The sliders' moves, as the page's address writes them."""
WIDTH, HEIGHT, MILLISECONDS = 1180, 700, 1000
MOST_BYTES = 2_000_000
SETTLE = 300
"""Milliseconds until colours have changed."""


def frames(page: Page, home: str) -> Iterator[Image.Image]:
    """The page's sliders and numbers after each move."""
    page.goto(home + "playground.html")
    for state in STATES:
        page.evaluate("document.querySelector('#result').removeAttribute('data-json')")
        page.evaluate("state => { location.hash = state }", state or "bits=0")
        page.wait_for_selector("#result[data-json]", timeout=120_000)
        page.wait_for_timeout(SETTLE)
        box = page.locator(".playground").bounding_box()
        clip = dict(x=0, y=box["y"] - 12, width=WIDTH, height=HEIGHT)
        png = page.screenshot(clip=clip, full_page=True)
        yield Image.open(io.BytesIO(png)).convert("RGB")


def record() -> None:
    """Write both pictures."""
    browser = find_browser()
    if not browser:
        raise SystemExit(BROWSER_ADVICE)
    with make_server(SITE) as server, sync_playwright() as playwright:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for folder, name in (("", "playground.webp"), ("zh/", "playground.zh.webp")):
            page = chromium.new_page(viewport=dict(width=WIDTH, height=900))
            page.emulate_media(color_scheme="light", reduced_motion="reduce")
            first, *rest = frames(page, f"http://127.0.0.1:{server.server_port}/{folder}")
            with replacing(ROOT / "docs" / name) as path:
                moving = dict(save_all=True, append_images=rest, duration=MILLISECONDS, loop=0)
                first.save(path, "WEBP", quality=75, method=6, **moving)
            size = (ROOT / "docs" / name).stat().st_size
            print(f"docs/{name}: {size:,} bytes")
            assert size < MOST_BYTES
        chromium.close()
        server.shutdown()


if __name__ == "__main__":
    record()
