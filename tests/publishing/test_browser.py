"""In a headless Chromium against a real JupyterLab: open, run, move sliders, see numbers change.

Notebook 00 runs whole, in both languages; of every other the set-up, the explorers and what these
need. What the page showed at the end lies under runs/screenshots, untracked, to be looked at.
"""

import ast
import json
import os
import signal

import nbformat
import pytest
from browser import (
    EXPLORER,
    HIGH,
    MOVE_SECONDS,
    NUMBERS,
    START_SECONDS,
    WIDTHS,
    WORDS,
    first_numbers,
    move_control,
    opened_and_run,
    see_other_numbers,
    see_whole_picture,
    set_width,
    wait_for,
)
from nbformat import v4
from order import longest_first
from plotly.offline import get_plotlyjs

from efflab.base.formats import LANGUAGES, PLOTLY
from efflab.lab.figures import panels
from efflab.lab.picture import read_script
from efflab.publishing.catalog import NOTEBOOKS, built_path, sources
from efflab.publishing.source import read_source, translate

WHOLE = [("00", "en"), ("00", "zh")]
BUTTONS = {"Download plot as a PNG", "Zoom", "Pan", "Reset axes"}  # none that uploads
# anywidget gives a widget up if it is not there in two seconds, and drops what the kernel sends it.
NO_PATIENCE = """const timeout = AbortSignal.timeout.bind(AbortSignal);
AbortSignal.timeout = ms => timeout(ms === 2000 ? 0 : ms);"""


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


TOY = """from efflab import lab
from efflab.lab import Slider

def tokens(length=128, window=320):
    return lab.blank(f"{length}, {window}", meta={"length": length, "window": window})

lab.explore(tokens, length=Slider(64, 1024, scale="log2"), window=Slider(64, 512, step=16))"""
LOST = "index => getComputedStyle(document.querySelector('.efflab-explorer'), '::before').content"


def test_sliders_are_named_typed_values_are_answered_and_a_lost_kernel_is_told(
    lab, chromium, lab_folder
):
    nbformat.write(v4.new_notebook(cells=[v4.new_code_cell(TOY)]), lab_folder / "toy.ipynb")
    with opened_and_run("toy.ipynb", 1, "toy", lab, chromium) as page:
        first = first_numbers(page, 0)
        explorer = page.locator(EXPLORER)
        length, window = explorer.locator(".noUi-handle").all()

        def said():
            return [
                (h.get_attribute("aria-label"), h.get_attribute("aria-valuetext"))
                for h in (length, window)
            ]

        wait_for(lambda: said() == [("length", "128"), ("window", "320")], 10, "names and values")
        move_control(explorer)
        see_other_numbers(page, 0, first)
        assert said()[0] == ("length", "256")  # not 2, which is its place

        readout = explorer.locator(".widget-readout").nth(1)
        readout.fill("333")
        readout.press("Enter")
        note = explorer.get_by_text("333 → 336")
        note.wait_for(timeout=10_000)
        numbers = '{"length":256,"window":336}'
        wait_for(lambda: page.evaluate(NUMBERS, 0) == numbers, 10, "the value that was taken")
        assert (said()[1], readout.inner_text()) == (("window", "336"), "336")

        assert page.evaluate(LOST) == "none"
        page.get_by_role("menuitem", name="Kernel", exact=True).click()
        page.locator(".lm-Menu-item[data-command='kernelmenu:restart']").click()
        page.locator(".jp-Dialog .jp-mod-accept").click()
        wait_for(lambda: "run this cell again" in page.evaluate(LOST), 30, "a word of the kernel")
        page.get_by_text("| Idle").wait_for()  # a kernel that starts cannot be ended

        hint = page.get_by_text("No controls above? Run this cell again")
        assert hint.is_hidden()
        page.keyboard.press("Control+s")
        wait_for(lambda: outputs_of(lab_folder / "toy.ipynb"), MOVE_SECONDS, "saved outputs")
        page.reload()
        hint.wait_for(timeout=START_SECONDS * 1000)  # instead of controls
        assert "drawn: length: 128 · window: 320" in hint.inner_text()
        page.get_by_text("| Idle").wait_for()


def outputs_of(path):
    """All outputs of a notebook as it is stored."""
    return [o for cell in nbformat.read(path, as_version=4).cells for o in cell.outputs]


@pytest.mark.parametrize("script", ["", NO_PATIENCE], ids=["page at rest", "busy page"])
def test_a_kernel_that_is_silent_or_died_is_told(script, lab, chromium, lab_folder):
    cell = v4.new_code_cell(f"import os\nprint('process', os.getpid())\n{TOY}")
    nbformat.write(v4.new_notebook(cells=[cell]), lab_folder / "died.ipynb")
    with opened_and_run("died.ipynb", 1, "died", lab, chromium, script) as page:
        explorer, first = page.locator(EXPLORER), first_numbers(page, 0)
        move_control(explorer)
        see_other_numbers(page, 0, first)
        told = page.locator(".jp-OutputArea-output", has_text="process").first.inner_text()
        process, second = int(told.split()[1]), page.evaluate(NUMBERS, 0)
        os.kill(process, signal.SIGSTOP)
        try:
            move_control(explorer)
            wait_for(lambda: "does not answer" in page.evaluate(LOST), MOVE_SECONDS, "a word of it")
            assert page.evaluate(NUMBERS, 0) == second
        finally:
            os.kill(process, signal.SIGCONT)
        see_other_numbers(page, 0, second)
        wait_for(lambda: page.evaluate(LOST) == "none", MOVE_SECONDS, "no word any more")

        os.kill(process, signal.SIGKILL)
        page.locator(".jp-Dialog .jp-mod-accept").click(timeout=START_SECONDS * 1000)
        wait_for(lambda: "no longer knows" in page.evaluate(LOST), MOVE_SECONDS, "a word of it")
        page.get_by_text("| Idle").wait_for()


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
            buttons = page.locator(EXPLORER).nth(index).locator(".modebar-btn")
            titles = buttons.evaluate_all("all => all.map(one => one.dataset.title)")
            assert titles
            assert set(titles) <= BUTTONS
            move_control(page.locator(EXPLORER).nth(index))
            see_other_numbers(page, index, first)
        for width in (*WIDTHS[1:], WIDTHS[0]):
            set_width(page, width)
            for index in range(n_explorers):
                see_whole_picture(page, index, f"{screenshot}-{width}")
        assert page.locator(".Toastify__toast").all_inner_texts() == []  # no news over the page


OUTPUTS = (1008, 592, 274)  # pixels of an output where the window has WIDTHS
# Draws a figure as JupyterLab does, then fits it; answers what its words do wrong.
FIT = """async ([figure, width]) => {
  const place = document.createElement('div');
  place.style.width = `${width}px`;
  document.body.replaceChildren(place);
  const {data, layout, config} = structuredClone(figure);
  await Plotly.newPlot(place, data, layout, config);
  await drawFitted(place, figure);
  return (WORDS)(place);
}""".replace("WORDS", WORDS)


@pytest.fixture(scope="module")
def drawing(chromium):
    """A page with plotly and the scripts that fit figures to it."""
    page = chromium.new_page(viewport={"width": WIDTHS[0], "height": HIGH})
    page.set_content("<!doctype html><body></body>")
    for script in (get_plotlyjs(), *map(read_script, ("fit.js", "draw.js"))):
        page.add_script_tag(content=script)
    yield page
    page.close()


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("number", sources())
def test_words_of_figures_without_sliders_fit_any_width(number, language, drawing):
    cells = nbformat.read(built_path(sources()[number], language), as_version=4).cells
    outputs = [o for cell in cells for o in cell.get("outputs", []) if PLOTLY in o.get("data", {})]
    figures = [o.data[PLOTLY] for o in outputs if "sliders" not in o.data[PLOTLY]["layout"]]
    for figure in figures:
        title = figure["layout"]["title"]["text"]
        for width in OUTPUTS:
            assert (title, width, drawing.evaluate(FIT, [figure, width])) == (title, width, [])


@pytest.mark.parametrize("width", OUTPUTS)
@pytest.mark.parametrize("title", ["time", "time (open symbols: measured), a title of two lines"])
def test_a_number_with_an_exponent_at_a_panels_top_leaves_its_title_alone(title, width, drawing):
    fig = panels([title, title], rows=2)
    fig.add_scatter(x=[1, 2], y=[1, 1e5], row=1, col=1)
    fig.add_scatter(x=[1, 2], y=[1, 1e5], row=2, col=1)
    fig.update_yaxes(type="log", range=[0, 5], dtick=1, exponentformat="power", title_text="µs")
    assert drawing.evaluate(FIT, [json.loads(fig.to_json()), width]) == []


def test_what_plotly_left_at_an_old_place_is_drawn_again_once_the_size_rests(drawing):
    lines = [{"name": name, "y": [1, 2]} for name in "ab"]
    drawing.evaluate(FIT, [{"data": lines, "layout": {"height": 300, "title": {"text": "t"}}}, 592])
    legend, place = drawing.locator(".legend"), "node => node.getAttribute('transform')"
    right = legend.evaluate(place)
    legend.evaluate("node => node.setAttribute('transform', 'translate(1, 1)')")
    wait_for(lambda: legend.evaluate(place) == right, 10, "the legend at its place")


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
