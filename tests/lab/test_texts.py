"""Every literal that a reader can see has its Chinese, and every entry is some code's text.

Read from the syntax trees of lab, the rooms and the notebooks' sources, so that no test has to run
in two languages only to find a text without its Chinese. A literal is a reader's unless it is seen
to be another's: a docstring, a refusal, what goes to `print`, plotly's own words, code, a name.
"""

import ast
import csv
import re
from functools import cache
from pathlib import Path

import pytest
from code_files import code_files

import efflab
import efflab_rooms
from efflab.base.toml_files import read_toml
from efflab.data import DATA_DIR
from efflab.lab.text import OWN_TEXTS, has_chinese, needs_translation
from efflab.publishing.catalog import sources
from efflab.publishing.source import read_source

PACKAGE = Path(efflab.__file__).parent
HOUSE = Path(efflab_rooms.__file__).parent
ROOMS = {path.parent.name: path for path in sorted(HOUSE.glob("*/zh.toml"))}
OTHERS_CALLS = {"require", "require_one_of", "require_int", "print", "startswith", "get"}
"""Calls whose texts are no reader's, or that refuse, which `lab.refusals` translates."""
OTHERS = {
    # the words of an outcome, whose Chinese stands beside them in `lab.verdict`
    "holds if",
    "Holds if",
    "does not hold",
    "Does not hold",
    "holds in part",
    "Holds in part",
    # tests of a rule, as data/rules.toml calls them
    "no less",
    "no more",
    # what a reader may type
    "per cent",
    # refusals, made in a variable
    "(low, high), (low, high, step), a list, a bool, Slider, Choice or Toggle",
    "a condition exactly where it holds if",
    "a day where registered",
    "an interval: it was measured or recorded (Evidence.exact for a count)",
    "its id, name and value, and no keys but {keys}",
    "why it does not hold or cannot be told, and nothing where it holds",
    # keys of a result that a cell asserts something about
    "gradient of the input",
    "gradient of the bias table",
    "the same",
    # a text that a model is given
    "Return a shallow copy of the list, sorted in ascending order.",
}
PLOTLY_KEYWORDS = {
    "textposition",
    "annotation_position",
    "hovertemplate",
    "texttemplate",
    "xref",
    "yref",
    "position",
}
MARKUP = re.compile(
    r"(top|middle|bottom) (left|center|right)|[xy]\d* (domain|unified)"
    r"|.*(\d+px|sans-serif|%{|\\|\n).*",
    re.DOTALL,
)
"""Plotly's places and formats, CSS, and code."""
NAME = re.compile(r"([^a-z\s]\S*)(\s+[^a-z\s]\S*)*")
"""Words that all begin with a capital or a digit: "A100 80GB SXM", "Llama 3.1 405B"."""
LATIN = re.compile(r"[A-Za-z0-9]+")
WORD = re.compile(r"[A-Z]?[a-z]{2,}")


def text_nodes(tree: ast.AST) -> list[ast.Constant]:
    """String literals that are neither documentation nor surely somebody else's."""
    found = []

    def walk(node):
        if is_others(node):
            for call in ast.walk(node):  # print(tr("..."))
                if isinstance(call, ast.Call) and called(call) in ("tr", "tr_name"):
                    walk(call)
            return
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node)
        for child in ast.iter_child_nodes(node):
            if not (isinstance(node, ast.JoinedStr) and isinstance(child, ast.Constant)):
                walk(child)

    walk(tree)
    return found


def is_others(node: ast.AST) -> bool:
    """Whether what stands below is documentation, refuses, or speaks to plotly or to a terminal."""
    if isinstance(node, ast.Call):
        return called(node) in OTHERS_CALLS
    if isinstance(node, ast.keyword):
        return node.arg in PLOTLY_KEYWORDS
    is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_docstring or isinstance(node, ast.Raise | ast.Assert)


def called(node: ast.Call) -> str:
    return getattr(node.func, "id", getattr(node.func, "attr", ""))


def shape(node: ast.JoinedStr) -> re.Pattern | None:
    """What an f-string can become; None if it has no word of its own."""
    parts = [p.value if isinstance(p, ast.Constant) else None for p in node.values]
    if not any(part and needs_translation(part) for part in parts):
        return None
    pattern = "".join(".+" if part is None else re.escape(part) for part in parts)
    return re.compile(pattern, re.DOTALL)


@cache
def trees(place: str) -> tuple[ast.AST, ...]:
    """Syntax trees of a folder of the package, or of a room and its notebook's code cells."""
    path = HOUSE / place if place in ROOMS else PACKAGE / place
    paths = [path] if path.suffix == ".py" else sorted(path.rglob("*.py"))
    found = [ast.parse(path.read_text("utf-8")) for path in paths]
    for path in sources().values():
        if path.stem[3:] == place:
            cells = [c.source for c in read_source(path).cells if c.cell_type == "code"]
            found.append(ast.parse("\n".join(cells)))
    return tuple(found)


@cache
def all_nodes(place: str) -> tuple:
    """Every string of a place, whoever it is for: what an entry may stand for."""
    nodes = [node for tree in trees(place) for node in ast.walk(tree)]
    strings = [
        node
        for node in nodes
        if isinstance(node, ast.JoinedStr)
        or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    ]
    return (*strings, *(ast.Constant(name) for node in nodes for name in columns(node)))


def columns(node: ast.AST) -> list[str]:
    """Headers of a row written as `dict(share=..., kind="measured")`, as a table shows them."""
    is_row = isinstance(node, ast.Call) and called(node) == "dict"
    return [k.arg.replace("_", " ") for k in node.keywords if k.arg] if is_row else []


def is_for_readers(text: str) -> bool:
    """Whether a literal is prose: words with a space between, no code, no name."""
    prose = " " in text.strip() and needs_translation(text)
    return prose and not (MARKUP.fullmatch(text) or NAME.fullmatch(text) or text in OTHERS)


def words_shown(tree: ast.AST) -> set[str]:
    """Single words where they are surely a reader's: labels, units, arguments of `tr`, headers."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            found += [k.value for k in node.keywords if k.arg in ("label", "unit")]
            if called(node) == "Evidence" or ast.unparse(node.func) == "Evidence.of":
                found += [*node.args[1:2], *node.args[3:4]]  # name and unit
            if called(node) in ("tr", "tr_name", "predict", "Choice"):
                found += node.args[:2]
                found += [
                    x
                    for arg in node.args[:1]
                    if isinstance(arg, ast.List | ast.Tuple)
                    for x in arg.elts
                ]
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            names = [getattr(target, "id", "") for target in node.targets]
            if any(name.endswith("COLUMNS") for name in names):
                found += node.value.values
    texts = {x.value for x in found if isinstance(x, ast.Constant) and isinstance(x.value, str)}
    return {text for text in texts if WORD.fullmatch(text)}


def untranslated(place: str, entries: dict[str, str]) -> list[str]:
    """The reader's literals of a place that have no entry; what code looks up by is a key."""
    shown, keys = set(), set()
    for tree in trees(place):
        keys |= {
            getattr(node.slice, "value", None)
            for node in ast.walk(tree)
            if isinstance(node, ast.Subscript)
        }
        literals = (node.value for node in text_nodes(tree) if isinstance(node, ast.Constant))
        shown |= {text for text in literals if is_for_readers(text)} | words_shown(tree)
    return sorted(t for t in shown - keys if t not in entries and not has_chinese(t))


def unused(entries: dict[str, str], *places: str) -> list[str]:
    """Entries that no literal of the places is, no f-string becomes and no published row says.

    An entry with the same Latin words in its Chinese is a name, whatever it is made of.
    """
    nodes = [node for place in places for node in all_nodes(place)]
    literals = {node.value for node in nodes if isinstance(node, ast.Constant)}
    shapes = {s for node in nodes if isinstance(node, ast.JoinedStr) and (s := shape(node))}
    for path in sorted(DATA_DIR.glob("published/*.csv")):
        with path.open(encoding="utf-8") as file:
            literals |= {cell for row in csv.reader(file) for cell in row}
    return [
        text
        for text, chinese in entries.items()
        if text not in literals
        and LATIN.findall(text) != LATIN.findall(chinese)
        and not any(s.fullmatch(text) for s in shapes)
    ]


LAB = read_toml(OWN_TEXTS)
SHARED = [p.name for p in PACKAGE.iterdir() if p.is_dir() or p.suffix == ".py"]
"""All of the package."""


def test_lab_has_the_chinese_of_all_that_it_says():
    assert untranslated("lab", LAB) == []
    said = untranslated("publishing/doctor.py", LAB)
    assert [text for text in said if not text.startswith("No Chromium")] == []  # to whoever builds


def test_lab_has_no_entry_that_nobody_shows():
    assert unused(LAB, *SHARED, *ROOMS) == []


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_and_its_notebook_have_the_chinese_of_all_that_they_say(room):
    assert untranslated(room, LAB | read_toml(ROOMS[room])) == []


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_has_no_entry_that_nobody_shows(room):
    assert unused(read_toml(ROOMS[room]), room, *SHARED) == []


CHAPTERS = ("structure", "acceleration", "compression", "distributed", "serving", "ranking")


@pytest.mark.parametrize("module", CHAPTERS)
def test_notebook_15_has_the_chinese_of_all_that_advice_says(module):
    texts = LAB | read_toml(ROOMS["choose_plan"])
    said = untranslated(f"advice/{module}.py", texts)
    assert [text for text in said if text != "bf16 eager"] == []  # an engine's key


def test_texts_are_translated_whole_not_in_pieces():
    made = [
        f"{name}:{node.lineno}"
        for name, path in code_files().items()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and called(node) in ("tr", "tr_name")
        and node.args
        and isinstance(node.args[0], ast.JoinedStr | ast.BinOp)
    ]
    assert made == []


CODE = '''
"""A module's docstring."""
def draw(n):
    "What it draws"
    require(n > 0, "n", n, "more than none")
    print("printed words", tr("a text in print"))
    fig.add_scatter(name=tr("a curve"), textposition="top left", text="V100 SXM2")
    table(rows, {"time": "time taken"})
    return tr("{n} lines in all", n=f"{n} of them"), Slider(1, 5, unit="lines")
'''


def test_the_reader_of_syntax_trees_finds_what_is_shown(monkeypatch):
    tree = ast.parse(CODE)
    monkeypatch.setitem(globals(), "trees", lambda place: (tree,))
    monkeypatch.setitem(globals(), "all_nodes", lambda place: tuple(ast.walk(tree)))
    assert untranslated("", {}) == [
        "a curve",
        "a text in print",
        "lines",
        "time taken",
        "{n} lines in all",
    ]
    assert untranslated("", {"a curve": "曲线", "lines": "线"}) == [
        "a text in print",
        "time taken",
        "{n} lines in all",
    ]
    assert unused({"a curve": "曲线", "7 of them": "七条", "a line": "一条", "b": "b"}, "") == [
        "a line"
    ]
