"""In a headless Chromium against a real JupyterLab: open, run, move sliders, see numbers change.

Notebook 00 runs whole, in both languages; of every other the set-up, the explorers and what these
need. What the page showed at the end lies under runs/screenshots, untracked, to be looked at.
"""

import ast
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

import nbformat
import pytest

from efflab.lab import picture
from efflab.publishing.catalog import NOTEBOOKS, ROOT, built_path, sources
from efflab.publishing.doctor import BROWSER_ADVICE, find_browser
from efflab.publishing.order import longest_first
from efflab.publishing.source import read_source, translate

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
WHOLE = [("00", "en"), ("00", "zh")]
# Tracebacks and warnings, as JupyterLab marks them.
ERRORS = "[data-mime-type='application/vnd.jupyter.stderr'], [data-mime-type*='error']"
EXPLORER = ".efflab-explorer"
# anywidget gives a widget up if it is not there in two seconds, and drops what the kernel sends it.
NO_PATIENCE = """const timeout = AbortSignal.timeout.bind(AbortSignal);
AbortSignal.timeout = ms => timeout(ms === 2000 ? 0 : ms);"""
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
}""".replace("ROOM", str(picture.ROOM))
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
WIDE, NARROW, HIGH = 1400, 1024, 1000


# --- Which cells -----------------------------------------------------------------------------


def names(cell, context):
    """The names that a cell reads (`ast.Load`) or gives a value (`ast.Store`)."""
    nodes = list(ast.walk(ast.parse(cell.source)))
    found = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, context)}
    if context is ast.Store:
        kinds = (ast.FunctionDef, ast.ClassDef)
        found |= {n.name for n in nodes if isinstance(n, kinds)}
        aliases = [a for n in nodes if isinstance(n, ast.Import | ast.ImportFrom) for a in n.names]
        found |= {(a.asname or a.name).split(".")[0] for a in aliases}
    return found


def calls(cell, name):
    """How many times a cell calls `name` or `something.name`."""
    functions = [n.func for n in ast.walk(ast.parse(cell.source)) if isinstance(n, ast.Call)]
    return [getattr(f, "id", getattr(f, "attr", None)) for f in functions].count(name)


def explorers_of(cells):
    """The code cells up to `lab.use_notebook`, those that explore, and those that these need."""
    code = [c for c in cells if c.cell_type == "code"]
    n_first = next(i for i, cell in enumerate(code) if calls(cell, "use_notebook")) + 1
    chosen, needed = [], set()
    for cell in reversed(code[n_first:]):
        if calls(cell, "explore") or names(cell, ast.Store) & needed:
            chosen.append(cell)
            needed |= names(cell, ast.Load)
    return code[:n_first] + chosen[::-1]


def test_cells_are_chosen_by_what_they_read():
    lines = [
        "from efflab import lab",
        "import torch as t\nlab.use_notebook('x')",
        "a = 1",
        "b = 2\nprint(b)",
        "def f(x):\n    return x + a",
        "lab.explore(f)",
        "f = b",
    ]
    cells = [nbformat.v4.new_code_cell(line) for line in lines]
    cells.insert(2, nbformat.v4.new_markdown_cell("text"))
    assert [c.source for c in explorers_of(cells)] == [lines[i] for i in (0, 1, 2, 4, 5)]


# --- JupyterLab and Chromium -----------------------------------------------------------------


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


def move_slider(explorer):
    """One step of its first slider, to where there is room.

    JupyterLab may take the focus while it draws a cell that came into view, and the key goes
    elsewhere: like a reader, press again until the slider stands somewhere else.
    """
    handle = explorer.locator(".noUi-handle").first
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

    What it looks like lies under runs/screenshots too.
    """
    plot = page.locator(EXPLORER).nth(index).locator(".js-plotly-plot")
    plot.scroll_into_view_if_needed(timeout=5000)

    def fits():
        found.append(page.evaluate(SIZES, index))
        heights, widths = found[-1]["heights"], found[-1]["widths"]
        return min(heights) >= found[-1]["asked"] > 0 and max(widths) - min(widths) <= 1

    found = []
    try:
        wait_for(fits, MOVE_SECONDS / 6, "the picture has its size")
    except AssertionError as error:
        raise AssertionError(f"{error}: {found[-1]}") from None
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    png = plot.screenshot(path=SCREENSHOTS / f"{name}-{index}.png")
    assert page.evaluate(INK, base64.b64encode(png).decode()) > LEAST_INK


def keep_screenshot(page, name):
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    if page.locator(EXPLORER).count():
        page.locator(EXPLORER).last.scroll_into_view_if_needed(timeout=5000)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


# --- What a reader does ----------------------------------------------------------------------


@pytest.mark.parametrize(("number", "language"), WHOLE)
def test_the_first_notebook_runs_whole(number, language, lab, chromium):
    path = built_path(sources()[number], language)
    notebook = nbformat.read(path, as_version=4)
    name = path.relative_to(NOTEBOOKS).as_posix()
    run_and_explore(notebook, name, f"{number}-{language}", lab, chromium)


@pytest.mark.parametrize("number", [n for n in longest_first() if (n, "en") not in WHOLE])
def test_explorers_follow_their_sliders(number, lab, chromium, lab_folder):
    source = sources()[number]
    notebook = translate(read_source(source), "en")
    notebook.cells = explorers_of(notebook.cells)
    nbformat.write(notebook, lab_folder / f"{number}_explorers.ipynb")
    run_and_explore(notebook, f"{number}_explorers.ipynb", number, lab, chromium)


def test_explorers_move_on_a_page_that_was_too_busy_for_anywidget(lab, chromium, lab_folder):
    notebook = translate(read_source(sources()["00"]), "en")
    notebook.cells = explorers_of(notebook.cells)
    nbformat.write(notebook, lab_folder / "busy.ipynb")
    run_and_explore(notebook, "busy.ipynb", "busy", lab, chromium, script=NO_PATIENCE)


@contextmanager
def opened_and_run(name, n_cells, screenshot, lab, chromium, script=""):
    """The notebook's page once all its cells have run without an error; closed afterwards.

    `script` runs in the page before anything else.
    """
    kernel = start_kernel(lab, name)
    page = chromium.new_page(viewport={"width": WIDE, "height": HIGH})
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


def run_and_explore(notebook, name, screenshot, lab, chromium, script=""):
    """Open the page, run all cells without an error, move each explorer's slider; then narrow."""
    code = [c for c in notebook.cells if c.cell_type == "code"]
    n_explorers = sum(calls(cell, "explore") for cell in code)
    assert n_explorers >= 1
    with opened_and_run(name, len(code), screenshot, lab, chromium, script) as page:
        assert page.locator(EXPLORER).count() == n_explorers
        for index in range(n_explorers):
            first = first_numbers(page, index)
            see_whole_picture(page, index, screenshot)
            move_slider(page.locator(EXPLORER).nth(index))
            see_other_numbers(page, index, first)
        page.set_viewport_size({"width": NARROW, "height": HIGH})
        for index in range(n_explorers):
            see_whole_picture(page, index, f"{screenshot}-narrow")
        assert page.locator(".Toastify__toast").all_inner_texts() == []  # no news over the page


def prompt(cell):
    """The number in front of a code cell, 0 while there is none."""
    text = cell.locator(".jp-InputPrompt").inner_text().strip("[]: ")
    return int(text) if text.isdigit() else 0


def test_the_keyboard_goes_on_after_a_prediction(lab, chromium, lab_folder):
    notebook = translate(read_source(sources()["00"]), "en")
    code = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    asked = next(n for n, i in enumerate(code) if calls(notebook.cells[i], "predict"))
    notebook.cells = notebook.cells[: code[asked + 1] + 1]
    nbformat.write(notebook, lab_folder / "keyboard.ipynb")
    with opened_and_run("keyboard.ipynb", asked + 2, "keyboard", lab, chromium) as page:
        field = page.locator(".jp-OutputArea input[type=text]").first
        following = page.locator(".jp-CodeCell").nth(asked + 1)
        field.click()
        for typed, understood, key in (("4k", "4,000 tokens", "Enter"), ("0,5k", "500", "Tab")):
            before = prompt(following)
            field.fill(typed)
            field.press(key)
            page.get_by_text(f"Understood: {understood}").wait_for(timeout=MOVE_SECONDS * 1000)
            page.keyboard.press("Shift+Enter")
            wait_for(lambda: prompt(following) > before, MOVE_SECONDS, f"a cell after {key}")  # noqa: B023
        assert field.is_disabled()  # after one correction
