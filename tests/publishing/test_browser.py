"""In a headless Chromium against a real JupyterLab: open, run all, move the slider, see it move."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import pytest

from efflab.publishing.catalog import NOTEBOOKS, built_path, sources
from efflab.publishing.doctor import BROWSER_ADVICE, find_browser

START_SECONDS, RUN_SECONDS, MOVE_SECONDS = 90, 300, 60
# Tracebacks and warnings, as JupyterLab marks them.
ERRORS = "[data-mime-type='application/vnd.jupyter.stderr'], [data-mime-type*='error']"
# JSON of what the explorer's picture says: values and texts, not pixels.
PICTURE = """() => {
  const plot = document.querySelector('.efflab-explorer .js-plotly-plot');
  if (!plot || !plot.data) return null;
  const say = {data: plot.data, title: plot.layout.title, meta: plot.layout.meta};
  return JSON.stringify(say, (key, v) => ArrayBuffer.isView(v) ? Array.from(v) : v);
}"""


def request(url, data=None):
    body = None if data is None else json.dumps(data).encode()
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as reply:
        return json.loads(reply.read())


def wait_for(condition, seconds, what):
    """Poll until `condition()` gives something, which is returned; else fail saying `what`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := condition():
                return found
        except urllib.error.URLError:
            pass
        time.sleep(0.3)
    raise AssertionError(f"{what}: not within {seconds} s")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Address of a JupyterLab on a copy of the notebooks, with settings of its own."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(NOTEBOOKS, folder / "notebooks", ignore=shutil.ignore_patterns("src"))
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    environment = {**os.environ, **{name: str(folder / name.lower()) for name in names}}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1"]
    command += [f"--port={port}", "--ServerApp.port_retries=0", "--allow-root"]
    command += ["--IdentityProvider.token=", "--ServerApp.password="]  # for this test only
    command += ["--ServerApp.disable_check_xsrf=True", f"--ServerApp.root_dir={folder}/notebooks"]
    command += [
        "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: request(f"{url}/api/status"), START_SECONDS, "JupyterLab starts")
        yield url
    finally:
        server.terminate()
        server.wait(timeout=30)


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    path = find_browser()
    assert path, BROWSER_ADVICE
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def start_kernel(url, name):
    """A session for the notebook before its page opens, or the first Run All may run nothing."""
    data = {"path": name, "name": name, "type": "notebook", "kernel": {"name": "python3"}}
    kernel = request(f"{url}/api/sessions", data)["kernel"]["id"]
    return f"{url}/api/kernels/{kernel}"


@pytest.mark.parametrize("number", sources())
def test_runs_and_its_slider_moves_the_picture(number, lab, chromium):
    path = built_path(sources()[number], "en")
    n_cells, name = count_code_cells(path), path.name
    kernel = start_kernel(lab, name)
    page = chromium.new_page(viewport={"width": 1400, "height": 1000})
    try:
        page.goto(f"{lab}/lab/workspaces/{uuid.uuid4().hex}/tree/{name}")
        page.wait_for_selector(".jp-NotebookPanel-toolbar", timeout=START_SECONDS * 1000)

        def ready():
            state = request(kernel)
            return state["connections"] > 0 and state["execution_state"] == "idle"

        wait_for(ready, START_SECONDS, "the kernel is connected and idle")
        run_all(page)
        wait_for(lambda: page.evaluate(PICTURE), RUN_SECONDS, "the explorer's picture")
        wait_for(lambda: has_run(page, n_cells), RUN_SECONDS, "all cells have run")
        assert page.locator(ERRORS).all_inner_texts() == []
        before = page.evaluate(PICTURE)
        page.locator(".efflab-explorer .noUi-handle").first.focus()
        page.keyboard.press("ArrowRight")
        moved = wait_for(lambda: differs(page, before), MOVE_SECONDS, "the picture follows")
        assert json.loads(moved)["meta"] != json.loads(before)["meta"]
    finally:
        keep_screenshot(page, number)
        page.close()
        urllib.request.urlopen(urllib.request.Request(kernel, method="DELETE"), timeout=30)


def run_all(page):
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def count_code_cells(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return sum(cell["cell_type"] == "code" for cell in cells)


def has_run(page, n_cells):
    """Whether every cell's prompt shows a number, none a star or nothing."""
    prompts = page.locator(".jp-CodeCell .jp-InputPrompt").all_text_contents()
    return len(prompts) == n_cells and all(p.strip("[]:").isdigit() for p in prompts)


def differs(page, before):
    now = page.evaluate(PICTURE)
    return now if now and now != before else None


def keep_screenshot(page, number):
    folder = Path(NOTEBOOKS).parent / "runs" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    page.locator(".efflab-explorer").first.scroll_into_view_if_needed(timeout=5000)
    page.screenshot(path=folder / f"{number}.png")
