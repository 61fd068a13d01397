"""A JupyterLab and a headless Chromium that the browser tests drive, and what stands on a page."""

import base64
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
from contextlib import contextmanager

import pytest

from efflab.lab.picture import ROOM
from efflab.publishing.catalog import NOTEBOOKS, ROOT
from efflab.publishing.doctor import BROWSER_ADVICE, find_browser

START_SECONDS, RUN_SECONDS, MOVE_SECONDS = 90, 300, 60
FLAGS = (
    "--no-sandbox",  # as root, Chromium refuses to start with one
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SETTINGS = ROOT / "efflab" / "publishing" / "jupyter"  # as `efflab lab` has them
SCREENSHOTS = ROOT / "runs" / "screenshots"
# Tracebacks and warnings, as JupyterLab marks them.
ERRORS = "[data-mime-type='application/vnd.jupyter.stderr'], [data-mime-type*='error']"
EXPLORER = ".efflab-explorer"
# What stands in an explorer, to be told when its numbers stay away.
STATE = """index => {
  const explorer = document.querySelectorAll('.efflab-explorer')[index];
  const plot = explorer && explorer.querySelector('.js-plotly-plot');
  const children = plot ? [...plot.children].map(c => `${c.className} (${c.style.display})`) : null;
  return JSON.stringify({
    children, meta: plot && plot.layout ? plot.layout.meta : null,
    slider: explorer && explorer.querySelector('.noUi-handle')?.getAttribute('aria-valuenow'),
    output: explorer && explorer.querySelector('.jp-OutputArea')?.outerHTML.slice(0, 500),
  });
}"""
# JSON of the numbers that an explorer's picture says; null while there is no picture.
NUMBERS = """index => {
  const explorer = document.querySelectorAll('.efflab-explorer')[index];
  const plot = explorer && explorer.querySelector('.js-plotly-plot');
  return plot && plot.layout && plot.layout.meta ? JSON.stringify(plot.layout.meta) : null;
}"""

# Heights and widths of an explorer's picture on the page, from the plot to the output around it.
# JupyterLab takes the height out of the plot's layout; `asked` is what the kernel gave the output.
SIZES = """index => {
  const explorer = document.querySelectorAll('.efflab-explorer')[index];
  const plot = explorer.querySelector('.js-plotly-plot');
  const boxes = [plot.querySelector('.main-svg'), plot, plot.closest('.jp-OutputArea-output')];
  const sizes = boxes.map(box => box.getBoundingClientRect());
  return {
    asked: parseFloat(plot.closest('[style*=min-height]').style.minHeight) - ROOM,
    heights: sizes.map(s => s.height), widths: sizes.map(s => s.width),
  };
}""".replace("ROOM", str(ROOM))
# What a plot's words do wrong, as texts: cut off by the figure or by their panel, or over others.
# Boxes are a little larger than their letters; words that stand askew have none that says much.
WORDS = """plot => {
  const boxOf = node => node.getBoundingClientRect();
  const turned = ({a, b}) => Math.min(Math.abs(a), Math.abs(b)) > 0.01;
  const sticks = (b, home) => Math.max(
    home.left - b.left, b.right - home.right, home.top - b.top, b.bottom - home.bottom) > 2;
  const shared = (a, b) => [
    Math.min(a.right, b.right) - Math.max(a.left, b.left),
    Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top)];
  const whole = boxOf(plot.querySelector('.main-svg'));
  const found = [], wrong = [];
  for (const node of plot.querySelectorAll('.main-svg text, .legend .bg')) {
    const inLegend = node.matches('text') && node.closest('.legend');
    const box = boxOf(node), style = getComputedStyle(node);
    const hidden = style.visibility === 'hidden' || style.opacity === '0' || !box.width;
    if (inLegend || hidden || node.closest('.hoverlayer')) continue;
    const word = node.textContent || 'the legend';
    const id = node.closest('.textpoint') && node.closest('.subplot').classList[1];
    const home = id ? boxOf(plot.querySelector(`.nsewdrag[data-subplot="${id}"]`)) : whole;
    if (id && Math.min(...shared(box, home)) < 0) continue;  // at a point that is out of sight
    if (sticks(box, home) || sticks(box, whole)) wrong.push(`${word}: cut`);
    if (!turned(node.getScreenCTM())) found.push([word, box]);
  }
  found.forEach(([word, box], i) => found.slice(i + 1).forEach(([other, over]) => {
    if (Math.min(...shared(box, over)) > 3) wrong.push(`${word}: over ${other}`);
  }));
  return wrong;
}"""
# The share of a PNG's pixels that are not nearly white: text, lines and marks, but no grid.
INK = """async png => {
  const image = await createImageBitmap(await (await fetch('data:image/png;base64,' + png)).blob());
  const context = new OffscreenCanvas(image.width, image.height).getContext('2d');
  context.drawImage(image, 0, 0);
  const {data} = context.getImageData(0, 0, image.width, image.height);
  let n = 0;
  for (let i = 0; i < data.length; i += 4) n += Math.min(data[i], data[i + 1], data[i + 2]) < 200;
  return n / (data.length / 4);
}"""
LEAST_INK = 0.01
WIDTHS, HIGH = (1440, 1024, 390), 1000


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
def lab_folder(tmp_path_factory):
    """A copy of the built notebooks, which JupyterLab serves."""
    folder = tmp_path_factory.mktemp("lab") / "notebooks"
    return shutil.copytree(NOTEBOOKS, folder, ignore=shutil.ignore_patterns("src"))


@pytest.fixture(scope="module")
def lab(lab_folder):
    """Address of a JupyterLab on the copy, with settings of its own."""
    folder = lab_folder.parent
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    environment = {**os.environ, **{name: str(folder / name.lower()) for name in names}}
    environment["JUPYTER_CONFIG_PATH"] = str(SETTINGS)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1"]
    command += [f"--port={port}", "--ServerApp.port_retries=0", "--allow-root"]
    command += ["--IdentityProvider.token=", "--ServerApp.password="]  # for this test only
    command += ["--ServerApp.disable_check_xsrf=True", f"--ServerApp.root_dir={lab_folder}"]
    command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
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
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


def start_kernel(url, name):
    """A session for the notebook before its page opens, or the first Run All may run nothing."""
    data = {"path": name, "name": name, "type": "notebook", "kernel": {"name": "python3"}}
    kernel = request(f"{url}/api/sessions", data)["kernel"]["id"]
    return f"{url}/api/kernels/{kernel}"


def run_all(page):
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def has_run(page, n_cells):
    """Whether every cell's prompt shows a number, none a star or nothing."""
    prompts = page.locator(".jp-CodeCell .jp-InputPrompt").all_text_contents()
    return len(prompts) == n_cells and all(p.strip("[]:").isdigit() for p in prompts)


def move_control(explorer):
    """One step of its first slider, to where there is room; without one, its first menu's next.

    JupyterLab may take the focus while it draws a cell that came into view, and the key goes
    elsewhere: like a reader, press again until the slider stands somewhere else.
    """
    menus, handle = explorer.locator("select"), explorer.locator(".noUi-handle").first
    if menus.count() and not handle.count():
        options = menus.first.locator("option").count()
        place = menus.first.evaluate("menu => menu.selectedIndex")
        menus.first.select_option(index=(place + 1) % options)
        return
    before = handle.get_attribute("aria-valuenow")
    at_end = before == handle.get_attribute("aria-valuemax")

    def moved():
        handle.press("ArrowLeft" if at_end else "ArrowRight")
        return handle.get_attribute("aria-valuenow") != before

    wait_for(moved, MOVE_SECONDS, "the slider moves")


def see_other_numbers(page, index, before):
    """Wait until an explorer's numbers are no longer those of before."""
    try:
        wait_for(
            lambda: page.evaluate(NUMBERS, index) not in (None, before),
            MOVE_SECONDS,
            "other numbers",
        )
    except AssertionError as error:
        raise AssertionError(f"{error}: {before}, {page.evaluate(STATE, index)}") from None


def see_whole_picture(page, index, name):
    """An explorer's picture has the height that its figure asks for, its output's width, and ink.

    None of its words is cut off or over another, and its place is no higher than it. What it looks
    like lies under runs/screenshots too.
    """
    plot = page.locator(EXPLORER).nth(index).locator(".js-plotly-plot")
    plot.scroll_into_view_if_needed(timeout=5000)

    def fits():
        found.append(page.evaluate(SIZES, index))
        heights, widths = found[-1]["heights"], found[-1]["widths"]
        found[-1]["words"] = plot.evaluate(WORDS)
        high = min(heights) >= found[-1]["asked"] > 0 and max(heights) - min(heights) <= ROOM
        return high and max(widths) - min(widths) <= 1 and not found[-1]["words"]

    found = []
    try:
        wait_for(fits, MOVE_SECONDS / 6, "the picture has its size")
    except AssertionError as error:
        raise AssertionError(f"{error}: {found[-1]}") from None
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    png = plot.screenshot(path=SCREENSHOTS / f"{name}-{index}.png")
    assert page.evaluate(INK, base64.b64encode(png).decode()) > LEAST_INK


def set_width(page, width):
    """Give the window another width, and the notebook all of it, as one does on a phone."""
    page.set_viewport_size({"width": width, "height": HIGH})
    side = page.locator("#jp-left-stack")
    if side.is_visible() != (width > WIDTHS[-1]):
        page.keyboard.press("Control+b")
        side.wait_for(state="visible" if width > WIDTHS[-1] else "hidden")


def keep_screenshot(page, name):
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    if page.locator(EXPLORER).count():
        page.locator(EXPLORER).last.scroll_into_view_if_needed(timeout=5000)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


@contextmanager
def opened_and_run(name, n_cells, screenshot, lab, chromium, script=""):
    """The notebook's page once all its cells have run without an error; closed afterwards.

    `script` runs in the page before anything else.
    """
    kernel = start_kernel(lab, name)
    page = chromium.new_page(viewport={"width": WIDTHS[0], "height": HIGH})
    page.add_init_script(script)
    errors = page.locator(ERRORS)
    try:
        page.goto(f"{lab}/lab/workspaces/{uuid.uuid4().hex}/tree/{name}")
        page.wait_for_selector(".jp-NotebookPanel-toolbar", timeout=START_SECONDS * 1000)

        def ready():
            state = request(kernel)
            return state["connections"] > 0 and state["execution_state"] == "idle"

        wait_for(ready, START_SECONDS, "the kernel is connected and idle")
        run_all(page)
        wait_for(lambda: errors.count() or has_run(page, n_cells), RUN_SECONDS, "all have run")
        assert errors.all_text_contents() == []
        yield page
    finally:
        keep_screenshot(page, screenshot)
        page.close()
        urllib.request.urlopen(urllib.request.Request(kernel, method="DELETE"), timeout=30)


def first_numbers(page, index):
    """The numbers of an explorer as soon as it has a picture."""
    return wait_for(lambda: page.evaluate(NUMBERS, index), MOVE_SECONDS, "a picture")
