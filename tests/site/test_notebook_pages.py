"""The notebooks' pages: a toy with one of each thing, and a real one, in Chromium from disk."""

import random
import re

import nbformat
import pytest
from browser import wait_for
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from test_typed import READ

from efflab import lab
from efflab.base.formats import PLOTLY, VERDICT
from efflab.base.significant import significant
from efflab.lab import Explorer, page, predict, text
from efflab.lab.predict import comparison
from efflab.lab.typed import parse
from efflab.publishing.catalog import built_path, catalog, find
from efflab.publishing.site import notebook_pages
from efflab.publishing.site.assets import Assets
from efflab.publishing.site.templates import STATIC
from efflab.publishing.source import read_built

NARROW, WIDE = {"width": 390, "height": 800}, {"width": 1280, "height": 800}
MOST_BYTES = 2_000_000
QUESTION = "How many 'tokens' <in all>?"
HOSTILE = "</script><b id='broken'>&amp;"
SOURCE = "def attend(q):\n    return q\n\n\nclass Cut:\n    pass"
BARE = {"data": [{"y": [1, 2]}], "layout": {}}
ENTRIES = {
    "89": dict(name="89_before", title={"en": "Before", "zh": "之前"}),
    "90": dict(
        name="90_toy", title={"en": "A <toy>", "zh": "玩具"}, finds={"en": "all", "zh": "全"}
    ),
    "91": dict(name="91_after", title={"en": "After", "zh": "之后"}),
}
TEXT = r"""
# 90 · A toy

[Chinese edition](zh/90_toy.ipynb)

## Formulas

$H^{-1}$ of $X^T X$, and
$$t_\text{all} = \max\left(\tfrac{10^9}{156}, 2\right)$$

## Formulas

| | |
|---|---|
| `attention-quadratic` | see [after](91_after.ipynb#Formulas) |

<details><summary>Solution</summary>

```python
answer = 4
```

</details>

**References.** Vaswani et al. 2017, arXiv:1706.03762. Williams 2009, doi:10.1145/1498765.1498785.
"""


def explorer(n=2, kind="bars", size=16, deep=False):
    """Two panels, of which the second's title is long."""
    titles = [f"first {HOSTILE}", "a second title that is far too long for one line of a phone"]
    fig = lab.panels(titles, f"{n} {kind} of {size} tokens")
    names = ["a category whose name is rather long<br>(n²)", "other"]
    fig.add_bar(y=names, x=[n, size], orientation="h", row=1, col=1, name="of the first kind")
    fig.add_scatter(x=[1, 2], y=[n, size], row=1, col=2, name="of the second kind")
    fig.update_layout(legend=dict(x=0.99, y=0.99))
    return fig


def outputs_of(monkeypatch, show) -> list:
    """The outputs that `show` gives in a build."""
    shown = []

    def display(bundle, raw, metadata=None):
        shown.append(new_output("display_data", data=bundle, metadata=metadata or {}))

    monkeypatch.setitem(page._build, "widgets", False)
    monkeypatch.setattr("IPython.display.display", display)
    show()
    return shown


@pytest.fixture(scope="module")
def toy_notebook():
    """A notebook with a prediction, its answer, an explorer, a listing, a check and a verdict."""
    with pytest.MonkeyPatch.context() as patch:
        return make_toy(patch)


def make_toy(monkeypatch):
    def ask():
        asked.append(predict(QUESTION, "tokens"))

    asked: list = []
    controls = dict(n=(1, 3), kind=["bars", "dots"], size=(1, 64), deep=False)
    figure = {PLOTLY: None, "text/plain": HOSTILE}
    monkeypatch.setitem(page._build, "widgets", False)
    figure[PLOTLY] = Explorer(explorer, most=24, **controls).bundle()[PLOTLY]
    listing = {"text/markdown": f"```python\n{SOURCE}\n```", "text/plain": SOURCE}
    table = "<table><tr>" + "<td>a rather wide cell</td>" * 40 + "</tr></table>"
    card = {VERDICT: {"claim": "attention-quadratic"}, "text/html": "<div>card</div>"}
    shown = [
        ("asked = predict()", outputs_of(monkeypatch, ask)),
        ("explore(figure)", [new_output("display_data", data=figure)]),
        ("foreign()", [new_output("display_data", data={PLOTLY: BARE, "text/plain": ""})]),
        ("asked.reveal(4096)", outputs_of(monkeypatch, lambda: asked[0].reveal(4096))),
        ("show_source(attend, Cut)", [new_output("display_data", data=listing)]),
        ("table()", [new_output("display_data", data={"text/html": table})]),
        ("print()", [new_output("stream", name="stdout", text=HOSTILE)]),
        ("answer = ...", []),
        ('check("90-1", answer)', [new_output("stream", name="stdout", text="not attempted")]),
        ("\n".join(f"line_{i} = {i}" for i in range(30)), []),
        ("verdict()", [new_output("display_data", data=card)]),
    ]
    cells = [new_code_cell(code, outputs=outputs, execution_count=1) for code, outputs in shown]
    return nbformat.v4.new_notebook(cells=[new_markdown_cell(TEXT), *cells])


@pytest.fixture(scope="module")
def toy_page(toy_notebook, tmp_path_factory):
    """The file of the toy's page, beside its assets."""
    folder = tmp_path_factory.mktemp("toy")
    path = folder / "90_toy.ipynb"
    nbformat.write(toy_notebook, path)
    return write_page(path, "en", ENTRIES, folder / "site")


def write_page(path, language, entries, target):
    from plotly.offline import get_plotlyjs

    assets = Assets(target)
    for file in STATIC.iterdir():
        assets.add(file.name, file.read_bytes())
    plotly = assets.add("plotly.min.js", get_plotlyjs().encode())
    html = notebook_pages.write(path, language, entries, plotly)
    file = target / ("zh" if language == "zh" else "") / f"{path.stem}.html"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(html, encoding="utf-8")
    return file


@pytest.fixture
def opened(chromium):
    """Opens a page; fails at the end if its console said anything or it asked another host."""
    contexts, complaints = [], []

    def opens(file, size=WIDE, **options):
        context = chromium.new_context(viewport=size, **options)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda request: complaints.append(request.url) if foreign(request) else 0)
        tab.goto(file.as_uri())
        return tab

    yield opens
    for context in contexts:
        context.close()
    assert complaints == []


def foreign(request):
    return not request.url.startswith(("file:", "data:", "blob:"))


def see_figure(tab):
    """Scroll to the first figures and wait until they are drawn."""
    for figure in tab.locator("figure.plot").all()[1::-1]:
        figure.scroll_into_view_if_needed()
        figure.locator(".main-svg").first.wait_for()


# --- What is written --------------------------------------------------------------------------


def test_the_page_has_its_title_contents_neighbours_and_links(toy_page):
    html = toy_page.read_text(encoding="utf-8")
    assert "<title>90 · A &lt;toy&gt; · efflab</title>" in html
    assert html.count("<h1>") == 1
    assert [*re.findall('<li><a href="#([^"]*)">', html)] == ["Formulas", "Formulas-1"]
    assert '<h2 id="Formulas">' in html
    assert '<h2 id="Formulas-1">' in html
    assert 'rel="prev" href="89_before.html">← 89 · Before<' in html
    assert 'rel="next" href="91_after.html">91 · After →<' in html
    assert '<a href="91_after.html#Formulas">after</a>' in html
    assert '<a href="https://arxiv.org/abs/1706.03762">arXiv:1706.03762</a>.' in html
    assert '<a href="https://doi.org/10.1145/1498765.1498785">' in html
    assert "zh/90_toy.ipynb" not in html  # the switch of languages stands above
    assert 'href="zh/90_toy.html"' in html


def test_the_chinese_page_opens_the_chinese_notebook(toy_notebook, tmp_path):
    nbformat.write(toy_notebook, tmp_path / "90_toy.ipynb")
    html = notebook_pages.write(tmp_path / "90_toy.ipynb", "zh", ENTRIES, "plotly.js")
    said = "<code>efflab lab --language zh</code>，再打开 <code>90_toy.ipynb</code>"
    assert html.count(said) == 3


def test_every_heading_has_an_id_of_its_own():
    made = notebook_pages.Page("", {})
    ids = [made.add_heading(text) for text in ("a", "a 2", "a", "a", "!", "?")]
    assert ids == ["a", "a-2", "a-3", "a-4", "section", "section-5"]


def test_a_claim_links_to_its_verdict(toy_notebook, tmp_path):
    entries = catalog()
    path = tmp_path / "15_choose_plan.ipynb"
    nbformat.write(toy_notebook, path)
    html = notebook_pages.write(path, "en", entries, "plotly.js")
    assert '<a href="00_start_here.html#attention-quadratic"><code>' in html
    assert '<div class="output scroll" id="attention-quadratic">' in html


def test_what_is_long_or_an_answer_is_folded(toy_page):
    html = toy_page.read_text(encoding="utf-8")
    assert "<summary>Listing: attend, Cut (6 lines)</summary>" in html
    assert "<summary>Code, 30 lines</summary>" in html
    assert "<summary>Solution</summary>" in html
    assert "<details open" in html  # the contents alone
    assert html.count("<details open") == 1
    assert "not attempted" not in html  # a check's output speaks of running cells
    opening = "<code>efflab lab</code>, and open <code>90_toy.ipynb</code>"
    assert html.count(opening) == 3  # head, explorer, check


def test_stored_text_stays_text(toy_page, opened):
    assert 'id="broken"' not in toy_page.read_text(encoding="utf-8")
    tab = opened(toy_page)
    assert tab.locator("#broken").count() == 0
    assert tab.locator(".output pre", has_text=HOSTILE).count() == 1


def test_a_prediction_without_an_answer_is_shown_as_stored(toy_notebook, tmp_path):
    cells = [cell for cell in toy_notebook.cells if "reveal" not in cell.source]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "90_toy.ipynb")
    html = notebook_pages.write(tmp_path / "90_toy.ipynb", "en", ENTRIES, "plotly.js")
    assert "data-prediction" not in html
    assert "Write your number in the field when you run this cell." in html


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_notebook_becomes_a_page(language, tmp_path):
    entries = catalog()
    for number, entry in entries.items():
        path = built_path(find(number), language)
        notebook = read_built(path)
        questions = sum(
            "prediction" in output.get("metadata", {})
            for cell in notebook.cells
            for output in cell.get("outputs", [])
        )
        html = notebook_pages.write(path, language, entries, "plotly.js")
        assert len(html.encode()) < MOST_BYTES
        assert entry["title"][language] in html
        assert html.count("data-prediction=") == questions > 0, path
        assert html.count("data-answer=") == questions, path
        prose = re.sub(r"<(pre|script|noscript|code)\b.*?</\1>", "", html, flags=re.DOTALL)
        assert not re.search(r"\$[^<]*\\|\\[a-z]+[{\s]", prose), path  # a formula left as TeX
        assert html.count("<math") == html.count("</math>")
        assert ".ipynb" not in re.findall('href="[^"]*"', html)
    assert not text.missing


# --- What the page does -----------------------------------------------------------------------


def test_numbers_are_read_and_written_as_in_python(toy_page, opened):
    tab = opened(toy_page)
    units = ["", "tokens", "ms", "MB", "x", "%", "bits per byte"]
    typed = [*READ, "4k tokens", "2 s", "3 GB", "3M", "12 per cent", "1.2 bpb", "1/2", "x", "4 ms"]
    pairs = [(word, unit) for word in typed for unit in units]

    def read(word, unit):
        try:
            return parse(word, unit)
        except ValueError:
            return None

    script = "pairs => pairs.map(([t, unit]) => Numbers.parse(t, {unit, unit_name: unit}))"
    mine = tab.evaluate(script, pairs)
    for pair, value in zip(pairs, mine, strict=True):
        assert value == (pytest.approx(read(*pair)) if read(*pair) is not None else None), pair
    rng = random.Random(0)
    values = [0, 999.5, 998.5, 12.5, -2.5, 1e15, 1e-5, 0.125, 7251.3, 999.6, 1.5e-7, 1e20]
    values += [rng.choice([1, -1]) * 10 ** rng.uniform(-8, 18) for _ in range(300)]
    for digits in (2, 3):
        script = "([values, digits]) => values.map(v => Numbers.significant(v, digits))"
        expected = [significant(value, digits) for value in values]
        assert tab.evaluate(script, [values, digits]) == expected
    asked = dict(unit="tokens", unit_name="tokens", measured=4096.0)
    for guess in (4000.0, 4096.0, 10.0, 1e6, -5.0, 0.0):
        script = "([guess, asked]) => Numbers.comparison(guess, asked)"
        assert tab.evaluate(script, [guess, asked]) == comparison(guess, 4096.0, "tokens")


def test_a_prediction_compares_at_once_and_opens_the_answer(toy_page, opened):
    tab = opened(toy_page)
    box = tab.locator(".prediction")
    assert QUESTION in box.text_content()
    assert "4,096" not in tab.locator("main").inner_text()
    field = box.get_by_role("textbox", name=re.compile("your number"))
    field.fill("four")
    field.press("Enter")
    assert "not a number that I can read" in box.get_by_role("status").text_content()
    assert "4,096" not in tab.locator("main").inner_text()
    field.fill("1万")
    field.press("Enter")
    said = "You said 10,000 tokens, it is 4,096 tokens: your number is 2.4 times too high."
    assert box.get_by_role("status").text_content() == said
    assert tab.locator("[data-answer] details").get_attribute("open") is not None
    field.fill("4k")
    box.get_by_role("button").click()
    assert "4,000 tokens, it is 4,096 tokens: well" in box.get_by_role("status").text_content()


def test_the_slider_and_the_lists_move_the_picture(toy_page, opened):
    tab = opened(toy_page)
    see_figure(tab)
    figure = tab.locator("figure.plot").first
    assert figure.locator("figcaption").text_content() == "2 bars of 16 tokens"
    slider = figure.get_by_role("slider", name=re.compile("n"))
    slider.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "3"
    figure.get_by_text("3 bars of 16 tokens").wait_for()
    figure.get_by_role("combobox", name="kind").select_option("dots")
    figure.get_by_text("3 dots of 16 tokens").wait_for()
    figure.get_by_role("combobox", name="size").select_option("64")
    figure.get_by_text("3 dots of 64 tokens").wait_for()
    assert tab.evaluate("document.querySelector('.graph').data[1].y") == [3, 64]
    assert "deep" in figure.locator(".note").text_content()  # the notebook alone has it
    assert figure.locator(".slider-container, .updatemenu-container").count() == 0
    figure.locator(".graph").hover()
    assert figure.locator("[data-title*=hare], [data-title*=loud]").count() == 0


def test_on_a_phone_panels_are_stacked_and_nothing_is_cut(toy_page, opened):
    wide = opened(toy_page)
    see_figure(wide)
    domains = "['xaxis', 'xaxis2'].map(a => document.querySelector('.graph').layout[a].domain)"
    (_, left), (right, _) = wide.evaluate(domains)
    assert left < right
    tab = opened(toy_page, NARROW)
    see_figure(tab)
    assert tab.evaluate(domains) == [[0, 1], [0, 1]]
    assert tab.evaluate("document.documentElement.scrollWidth") == NARROW["width"]
    boxes = """() => {
      const home = document.querySelector('.graph').getBoundingClientRect();
      const texts = [...document.querySelectorAll('.main-svg text')].filter(t => t.textContent);
      return texts.filter(t => {
        const b = t.getBoundingClientRect();
        return b.left < home.left - 1 || b.right > home.right + 1;
      }).map(t => t.textContent);
    }"""
    assert tab.evaluate(boxes) == []
    edges = """side => ['.legend', '.xaxislayer-above text, .xtitle'].map(words =>
      [...document.querySelector('.graph').querySelectorAll(words)]
        .map(word => word.getBoundingClientRect()[side]))"""
    assert min(tab.evaluate(edges, "top")[0]) >= max(tab.evaluate(edges, "bottom")[1])
    scrolling = tab.locator(".output.scroll[tabindex='0']")
    assert scrolling.count() == 1  # the wide table, in its own box
    tab.set_viewport_size(WIDE)
    wait_for(lambda: tab.evaluate(domains) != [[0, 1], [0, 1]], 10, "panels side by side")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_figure_has_the_colours_of_the_theme(theme, toy_page, opened):
    tab = opened(toy_page, color_scheme=theme)
    see_figure(tab)
    ink = "getComputedStyle(document.querySelector('.graph .xtick text')).fill"
    body = "getComputedStyle(document.body).color"
    assert tab.evaluate(ink) == tab.evaluate(body)
    before = tab.evaluate(ink)
    tab.locator("#theme").click()
    wait_for(lambda: tab.evaluate(ink) != before, 10, "another colour")
    assert tab.evaluate(ink) == tab.evaluate(body)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_real_notebook_on_a_phone_and_a_screen(language, tmp_path, opened):
    path = built_path(find("00"), language)
    file = write_page(path, language, catalog(), tmp_path)
    for size in (NARROW, WIDE):
        tab = opened(file, size)
        see_figure(tab)
        title = tab.locator("figcaption").first.text_content()
        tab.get_by_role("slider").first.press("ArrowRight")
        caption = tab.locator("figcaption").first
        wait_for(lambda t=title, c=caption: c.text_content() != t, 10, "another picture")
        for figure in tab.locator("figure.plot").all():
            figure.scroll_into_view_if_needed()
            figure.locator(".main-svg").first.wait_for()
        assert tab.evaluate("document.documentElement.scrollWidth") == size["width"]
        field = tab.get_by_role("textbox").first
        field.fill("4,608")
        field.press("Enter")
        assert "4,608" in tab.get_by_role("status").first.text_content()
