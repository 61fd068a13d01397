"""The notebooks as they are stored: in step with their sources, whole in both languages, clean."""

import ast
import json
import re
import tomllib
from functools import cache
from itertools import pairwise
from operator import attrgetter

import nbformat
import pytest
from solving import exercise_name, is_stub, solution

from efflab.base.formats import BOARD, LANGUAGES, PICTURE, PLOTLY, VERDICT, WIDGET
from efflab.base.limits import allows, in_words
from efflab.lab.page import source_of
from efflab.lab.text import has_chinese
from efflab.publishing.catalog import ROOT, built_path, catalog, sources
from efflab.publishing.outputs import read_outputs
from efflab.publishing.run import check_values_for
from efflab.publishing.source import (
    KEPT,
    differences,
    parameters,
    parameters_cell,
    read_source,
    tags,
    translate,
)

NUMBERS = list(sources())
BOTH = [(number, language) for number in NUMBERS for language in LANGUAGES]
MACHINE = re.compile(r"/(root|home|tmp|work|Users)/|site-packages|[A-Z]:\\Users")
MAX_LINES, MAX_PARAMETERS = 20, 5


@cache
def source(number):
    """A notebook's source, read once: no test changes it."""
    return read_source(sources()[number])


def built(number, language):
    return nbformat.read(built_path(sources()[number], language), as_version=4)


@cache
def outputs(kind):
    """All outputs of a kind, by notebook, read once."""
    return read_outputs(kind)


def kinds(cell):
    """A text cell's tags, its language apart."""
    return set(tags(cell)) - set(LANGUAGES)


def test_there_are_notebooks():
    assert NUMBERS[0] == "00"
    assert len(NUMBERS) == len(list((ROOT / "notebooks" / "src").glob("*.py")))


@pytest.mark.parametrize(("number", "language"), BOTH)
def test_in_step_with_the_source(number, language):
    assert differences(sources()[number], language) == []
    ids = [c.id for c in built(number, language).cells]
    assert ids == [c.id for c in translate(source(number), language).cells]


def test_no_built_notebook_without_a_source():
    stored = {p.relative_to(ROOT) for p in (ROOT / "notebooks").rglob("*.ipynb")}
    stored = {p for p in stored if ".ipynb_checkpoints" not in p.parts}
    wanted = {built_path(p, x).relative_to(ROOT) for p in sources().values() for x in LANGUAGES}
    assert stored == wanted


@pytest.mark.parametrize("number", NUMBERS)
def test_one_parameters_cell(number):
    names = parameters(source(number))
    assert next(iter(names.items())) == ("language", "en")
    assert len(names) <= MAX_PARAMETERS


def beside(cell, name):
    """The comment beside a parameter, "" for none."""
    (line,) = [x for x in cell.source.splitlines() if x.startswith(f"{name} = ")]
    return line.partition("  # ")[2]


@pytest.mark.parametrize("number", NUMBERS)
def test_every_number_has_its_limits_and_says_them(number):
    entry, cell = catalog()[number], parameters_cell(source(number))
    defaults, limits = parameters(source(number)), entry["limits"]
    numbers = {n for n, v in defaults.items() if type(v) in (int, float)}
    assert numbers <= set(limits) <= set(defaults)
    for name, limit in limits.items():
        assert allows(limit, defaults[name]), name
        assert allows(limit, entry["probe"].get(name, defaults[name])), name
        assert in_words(limit) in beside(cell, name), name


@pytest.mark.parametrize("number", NUMBERS)
def test_code_is_short_and_in_english(number):
    for cell in source(number).cells:
        if cell.cell_type == "code":
            assert len(cell.source.splitlines()) <= MAX_LINES, cell.source
            assert not has_chinese(cell.source), cell.source


def is_shared(cell) -> bool:
    """A solution that is code alone, for both languages."""
    prose = re.sub(r"```python\n.*?\n```|<[^>]*>|Solution", "", cell.source, flags=re.DOTALL)
    return "solution" in tags(cell) and not set(LANGUAGES) & set(tags(cell)) and not prose.strip()


@pytest.mark.parametrize("number", NUMBERS)
def test_every_text_has_its_twin(number):
    texts = [c for c in source(number).cells if c.cell_type == "markdown" and not is_shared(c)]
    order = [[t for t in tags(c) if t in LANGUAGES] for c in texts]
    assert order == [["en"], ["zh"]] * (len(texts) // 2)
    cells = source(number).cells
    for english, chinese in pairwise(cells):
        if "en" in tags(english):
            assert "zh" in tags(chinese), english.source  # directly after it
            assert kinds(english) == kinds(chinese)
            assert has_chinese(chinese.source), chinese.source
            assert not has_chinese(english.source), english.source


@pytest.mark.parametrize("number", NUMBERS)
def test_no_chinese_in_the_english_build(number):
    for cell in built(number, "en").cells:
        outputs = [dict(o) for o in cell.get("outputs", [])]
        for output in outputs:
            output["data"] = {k: v for k, v in output.get("data", {}).items() if k != PICTURE}
        text = cell.source + json.dumps(outputs, ensure_ascii=False)
        assert not has_chinese(text), text[:2000]


@pytest.mark.parametrize(("number", "language"), BOTH)
def test_stored_outputs_are_clean(number, language):
    notebook = built(number, language)
    counts = [c.execution_count for c in notebook.cells if c.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    n_pictures = 0
    for cell in notebook.cells:
        assert set(cell.metadata) <= set(KEPT)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            text = json.dumps({**output, "data": {**data, PICTURE: ""}}, ensure_ascii=False)
            assert output.output_type != "error", text
            assert output.get("name") != "stderr", text
            assert WIDGET not in data, cell.source
            assert not MACHINE.search(text), MACHINE.search(text)
            if PLOTLY in data:
                n_pictures += 1
                assert PICTURE in data, cell.source
    assert n_pictures >= 2
    size = built_path(sources()[number], language).stat().st_size
    assert size < 4e6, f"{size / 1e6:.1f} MB: fewer points in the figures?"


def width(text, full, letter):
    """Pixels of a text by its letters' average width; `full`: a Chinese letter's."""
    return sum(full if has_chinese(one) else letter for one in re.sub("<[^>]*>", "", text))


def title_end(figure):
    """Where a figure's title ends, in pixels; it begins right of the labels of its rows."""
    layout = figure["layout"]
    rows = [y for trace in figure["data"] for y in trace.get("y", []) if isinstance(y, str)]
    labels = [line for row in rows for line in row.split("<br>")]
    left = max([layout.get("margin", {}).get("l", 60), *(width(x, 12, 6.7) for x in labels)])
    lines = layout.get("title", {}).get("text", "").split("<br>")
    return left + max(width(line, 14, 7.3) for line in lines)


@pytest.mark.parametrize(("number", "language"), BOTH)
def test_no_title_is_cut(number, language):
    outputs = [o for c in built(number, language).cells for o in c.get("outputs", [])]
    figures = [o.data[PLOTLY] for o in outputs if PLOTLY in o.get("data", {})]
    assert figures
    for figure in figures:
        assert title_end(figure) <= figure["layout"].get("width", 720), figure["layout"]["title"]


def imports(cells):
    """{name: object} of what the code cells import."""
    names = {}
    for cell in cells:
        for node in ast.parse(cell.source).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                exec(ast.unparse(node), names)
    return names


def listings(cells):
    """(what `show_source` is asked for, what its cell stores) of each call, in order."""
    for cell in cells:
        calls = re.findall(r"show_source\((.+?)\)$", cell.source, re.M | re.S)
        bundles = [output.get("data", {}) for output in cell.get("outputs", [])]
        stored = [data["text/plain"] for data in bundles if "```python" in str(data)]
        assert len(calls) == len(stored), cell.source
        yield from zip(calls, stored, strict=True)


@pytest.mark.parametrize(("number", "language"), BOTH)
def test_a_listing_is_the_code_of_today(number, language):
    """A function was changed after its notebook was built: nbval found it, minutes later."""
    cells = [c for c in built(number, language).cells if c.cell_type == "code"]
    names, shown = imports(cells), list(listings(cells))
    assert shown
    for call, stored in shown:
        paths = [path.strip().partition(".") for path in call.split(",")]
        objects = [attrgetter(rest)(names[n]) if rest else names[n] for n, _, rest in paths]
        assert stored == source_of(*objects), call


PROGRAMS_FORM = re.compile(r"\d(\.\d+)?e[+-]\d\d|\d\.\d{10,}(?![\df])")  # C ends a float with f


def texts_shown(output):
    """The words of an output: printed, HTML, text, and those inside a figure."""
    data = output.get("data", {})
    yield output.get("text", "")
    yield from (text for kind, text in data.items() if kind.startswith("text/"))
    waiting = [data.get(PLOTLY, {})]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            waiting += [value for name, value in item.items() if name != "bdata"]
        elif isinstance(item, list):
            waiting += item


@pytest.mark.parametrize(("number", "language"), BOTH)
def test_numbers_are_shown_as_people_write_them(number, language):
    outputs = [o for c in built(number, language).cells for o in c.get("outputs", [])]
    texts = [text for output in outputs for text in texts_shown(output)]
    assert texts
    found = [
        text[max(m.start() - 40, 0) : m.end() + 10]
        for text in texts
        if (m := PROGRAMS_FORM.search(text))
    ]
    assert found == []


@pytest.mark.parametrize(("number", "language"), BOTH)
def test_what_was_asked_is_not_answered_before_the_reader_guesses(number, language):
    cells = [c for c in built(number, language).cells if c.cell_type == "code"]
    n_asked = sum(c.source.count("predict(") for c in cells)
    folded = [
        output
        for cell in cells
        for output in cell.outputs
        if output.get("data", {}).get("text/html", "").startswith("<details")
    ]
    assert len(folded) == n_asked > 0


@pytest.mark.parametrize("number", NUMBERS)
def test_catalog_agrees(number):
    entry, path = catalog()[number], sources()[number]
    assert entry["name"] == path.stem
    assert entry["minutes"] > 0
    given = check_values_for(path, source(number), entry["probe"])
    defaults = parameters(source(number))
    assert given, "the probe changes nothing"
    assert all(value != defaults[name] for name, value in given.items())
    for language in LANGUAGES:
        heading = built(number, language).cells[0].source.splitlines()[0]
        assert entry["title"][language] in heading
        assert has_chinese(entry["finds"][language]) == (language == "zh")
    found = [v["claim"] for v in outputs(VERDICT).get(number, [])]
    assert sorted(found) == sorted(entry["claims"])


def test_catalog_and_claims_are_complete():
    assert list(catalog()) == NUMBERS
    claims = tomllib.loads((ROOT / "data" / "claims.toml").read_text(encoding="utf-8"))
    for name, claim in claims.items():
        if claim["notebook"] in NUMBERS:
            assert name in catalog()[claim["notebook"]]["claims"]


@pytest.mark.parametrize("number", NUMBERS)
def test_exercises_have_a_check_a_hint_and_a_solution(number):
    cells = source(number).cells
    stubs = [i for i, c in enumerate(cells) if is_stub(c)]
    assert 2 <= len(stubs) <= 5  # one to three blanks to build, and two or three exercises
    for i in stubs:
        name = exercise_name(cells[i])
        after = next(c for c in cells[i + 1 :] if c.cell_type == "code")
        assert f'check("{name}"' in after.source
        solutions = {language: solution(source(number), name, language) for language in LANGUAGES}
        # the same code in both languages: comments may differ, what runs may not
        assert ast.dump(ast.parse(solutions["en"])) == ast.dump(ast.parse(solutions["zh"]))
    texts = [c.source for c in cells if "en" in tags(c)]
    hints = [t for t in texts if re.search(r"<summary>[^<]*hint", t, re.IGNORECASE)]
    assert len(hints) >= len(stubs)
    said = catalog()[number]["hints"]
    assert set(said) == {exercise_name(cells[i]) for i in stubs}
    assert all(has_chinese(hint["zh"]) and not has_chinese(hint["en"]) for hint in said.values())


@pytest.mark.parametrize("number", NUMBERS)
def test_no_mark_of_markdown_stands_where_it_is_not_read(number):
    """<details> begins HTML, up to the next empty line: `a` would show with its backticks."""
    for cell in source(number).cells:
        if cell.cell_type == "markdown":
            for block in re.findall(r"^<details>.*?(?:\n\n|\Z)", cell.source, re.M | re.S):
                assert not re.search(r"`|\*\*|\]\(", block), block


@pytest.mark.parametrize("number", NUMBERS)
def test_a_function_is_asked_for_by_the_name_that_is_checked(number):
    cells = source(number).cells
    for i in [i for i, c in enumerate(cells) if is_stub(c)]:
        for name in re.findall(r"^(\w+) = \.\.\.", cells[i].source, re.MULTILINE):
            texts = [c.source for c in cells[:i] if c.cell_type == "markdown"][-2:]
            asked = [t for t in texts if re.search(r"`[a-z_]+\([^`]*\)`", t)]
            assert all(f"`{name}" in text for text in asked), asked


@pytest.mark.parametrize(("number", "following"), list(pairwise(NUMBERS)))
def test_the_next_notebook_is_a_click_away(number, following):
    for language in LANGUAGES:
        end = translate(source(number), language).cells[-1].source
        assert re.search(rf"\[{following} · [^\]]+\]\({sources()[following].stem}\.ipynb\)", end)


@pytest.mark.parametrize("number", NUMBERS)
def test_untouched_stubs_are_answered_kindly(number):
    cells = built(number, "en").cells
    checks = [c for c in cells if c.cell_type == "code" and re.search(r"^check\(", c.source, re.M)]
    assert len(checks) >= 2
    for cell in checks:
        said = [o["data"]["text/plain"] for o in cell.outputs if "data" in o]
        assert said, cell.source
        assert "not attempted" in said[0]


def test_ledger_and_board_are_what_the_notebooks_hold(tmp_path):
    verdicts = json.loads((ROOT / "data" / "verdicts.json").read_text(encoding="utf-8"))
    assert verdicts == outputs(VERDICT)
    board = json.loads((ROOT / "data" / "board.json").read_text(encoding="utf-8"))
    found = [p for points in outputs(BOARD).values() for p in points]
    assert all(point in found for point in board["points"])
