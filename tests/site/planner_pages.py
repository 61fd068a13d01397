"""The planner's two pages alone, served on this machine, and the browser's view of them."""

import json
import threading
from contextlib import contextmanager

from efflab.publishing.site import planner
from efflab.publishing.site.assets import Assets
from efflab.publishing.site.server import HOST, make_server
from efflab.publishing.site.templates import STATIC, environment

READY = 60_000
"""Milliseconds that a page may take on a machine that does much else."""


def build(folder):
    """The pages in both languages, with what they load."""
    assets = Assets(folder)
    for path in STATIC.iterdir():
        assets.add(path.name, path.read_bytes())
    parts = planner.load(assets)
    assert parts, "no npm package pyodide: make setup fetches it where npm is"
    for language in ("en", "zh"):
        place = folder / ("zh" if language == "zh" else "")
        place.mkdir(exist_ok=True)
        html = planner.write(language, parts)
        (place / "planner.html").write_text(html, encoding="utf-8")
    worker = environment().get_template("sw.js").render(assets=sorted(assets.places))
    (folder / "sw.js").write_text(worker, encoding="utf-8")
    return folder


@contextmanager
def serving(folder):
    """The address of the folder on this machine."""
    with make_server(folder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://{HOST}:{server.server_port}"
        finally:
            server.shutdown()


class Planner:
    """A page of the planner, with what its console and network said besides."""

    def __init__(self, browser, address, language="en", **options):
        self.context = browser.new_context(**options)
        self.page, self.said = self.context.new_page(), []
        self.address = f"{address}/{'zh/' if language == 'zh' else ''}planner.html"
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.context.on("request", lambda request: self._note(request.url, address))

    def _note(self, url, address):
        if not url.startswith(address):
            self.said.append(url)

    def open(self, state=""):
        self.page.goto(self.address + state)
        self.page.wait_for_selector("#card[data-json]", timeout=READY)
        return self

    def go(self, state, name):
        """Another address of the same page; waits for the card and advice of `name`."""
        self.page.evaluate("state => { location.hash = state }", state)
        self.wait("card", name)
        self.wait("advice", name)
        return self

    def wait(self, part, name):
        """Wait until the part is about the model; returns its JSON as it stands there."""
        self.page.wait_for_function(
            """([part, name]) => {
              const json = document.getElementById(part).dataset.json;
              const value = json && JSON.parse(json);
              return value && (value.name ?? value.asked.model) === name;
            }""",
            arg=[part, name],
            timeout=READY,
        )
        return self.page.get_attribute(f"#{part}", "data-json")

    def json(self, part="card"):
        return self.page.get_attribute(f"#{part}", "data-json")

    def paste(self, text):
        """Put a text into the field, and wait until it is answered."""
        self.page.evaluate(
            """() => {
              delete document.getElementById('card').dataset.json;
              document.getElementById('config-error').textContent = '';
            }"""
        )
        self.page.fill("#config", text if isinstance(text, str) else json.dumps(text))
        self.page.wait_for_function(
            """() => document.getElementById('card').dataset.json
              || document.getElementById('config-error').textContent""",
            timeout=READY,
        )
        return self.page.text_content("#config-error")
