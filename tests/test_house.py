"""The house stays small and readable: sizes, names, formatting. `make size` prints the counts."""

import ast
import io
import re
import tokenize
from collections import Counter

from code_files import FOLDERS, code_files

from efflab.publishing.catalog import ROOT

PACKAGE, ROOMS = FOLDERS
CAPABILITIES = {
    "today's models: reading, costing, advising": 1_215,
    "the site's frame": 250,
    "what the playground runs": 154,
    "the planner in the browser, and what it says in Chinese": 200,
    "decoding: today's decoders with a cache, and their files": 261,
    "decoding: its techniques": 330,
    "decoding: seven engines and formats, times predicted, a local model measured": 670,
    "sweeps: tables, pictures, several processes, clusters": 420,
    "the site's pages of notebooks and of the documents they lead to": 169,
    "a kernel whose port was taken starts again": 4,
    "what the command says: refusals before the work, whole lists, help, packages": 27,
    "what registered records come to, case by case": 20,
    "statements of notebooks' own, judged as claims are": 21,
    "experiments with the power to decide, and what their records come to": 1_089,
    "wrong results and refusals by name that reviews of the code found": 289,
    "whose the libraries are that the site carries": 16,
}
MOST_LINES = {"efflab": 14_118 + sum(CAPABILITIES.values())}
# the room of notebook 16, decoding, beside the sixteen others; its libraries and its statements;
# 10's record by kind of map, 09's of five calibrations, 08's clock of a full chip, 01's by seed
# with intervals by text, 04's two records of trained projections, 03's of a trained window;
# 16's statements say what their sources compare with, 11's table what is back against dense;
# checks of exercises that refuse what they must, and a contrast of four cells in 15; targets and
# open exercises in chapter 1; labels that name quantity and unit, on lines of their own
MOST_LINES["efflab_rooms"] = 7_500 + 390 + 80 + 25 + 15 + 10 + 18 + 48 + 10 + 9 + 34 + 104 + 47
"""Lines of code, without blanks, comments and docstrings. A limit goes down, never up; what a new
capability brings stands apart."""
MOST_LINES_A_FILE = 300
ROOM_FILES = {"__init__.py", "measure.py", "figures.py", "verdicts.py", "exercises.py", "zh.toml"}
MOST_UNFORMATTED = 40
IRREGULAR = set(
    "told kept made built shown held found taken said given done written drawn sent known seen "
    "gone spent lost met bound chosen broken grown hidden meant paid begun".split()
)
"""Past participles without "ed"."""
NO_TOKENS = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
NO_TOKENS |= {tokenize.ENCODING, tokenize.ENDMARKER}


STANDARD_TERMS = {"unchecked", "checked", "_interleaved"}
"""Python's style for what is wrapped; a name that others call; a pipeline's schedule."""


def code_lines(text: str) -> int:
    """Lines that hold code: no blank ones, comments or docstrings.

    >>> code_lines('"Doc."\\n\\nx = [\\n    1,  # one\\n]\\n')
    3
    """
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    spans = [(t.start[0], t.end[0]) for t in tokens if t.type not in NO_TOKENS]
    docs = [
        (node.lineno, node.end_lineno)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ]
    lines = [{n for a, b in pairs for n in range(a, b + 1)} for pairs in (spans, docs)]
    return len(lines[0] - lines[1])


def sizes() -> Counter:
    """{(package, folder): lines of code}; a package's own files stand under "."."""
    counts: Counter = Counter()
    for folder in FOLDERS:
        for path in folder.rglob("*.py"):
            inner = path.relative_to(folder).parts
            key = folder.name, inner[0] if len(inner) > 1 else "."
            counts[key] += code_lines(path.read_text("utf-8"))
    return counts


def test_lines_of_code_are_counted():
    assert code_lines('"""Doc.\n\nMore."""\n\n# why\nx = [\n    1,  # one\n]\n"""Of x."""\n') == 3
    assert code_lines('def f():\n    """Doc."""\n    return "a\\n" "b"\n') == 2


def test_the_package_and_the_rooms_stay_small():
    totals: Counter = Counter()
    for (package, _), lines in sizes().items():
        totals[package] += lines
    assert all(totals[package] <= most for package, most in MOST_LINES.items()), totals


def test_no_file_is_long():
    lengths = {name: len(p.read_text("utf-8").splitlines()) for name, p in code_files().items()}
    assert {name: n for name, n in lengths.items() if n > MOST_LINES_A_FILE} == {}


def test_every_room_has_the_same_files():
    for room in (path for path in ROOMS.iterdir() if (path / "zh.toml").exists()):
        assert {path.name for path in room.iterdir() if path.is_file()} <= ROOM_FILES, room.name


def test_code_stands_as_the_formatter_writes_it():
    files = [*code_files().values(), *(ROOT / "tests").rglob("*.py")]
    files += (ROOT / "notebooks" / "src").glob("*.py")
    marked = {p: p.read_text("utf-8").count("# fmt: skip\n") for p in files}
    assert sum(marked.values()) <= MOST_UNFORMATTED, {p.name: n for p, n in marked.items() if n}


def is_participle(word: str) -> bool:
    return word in IRREGULAR or bool(re.fullmatch(r"\w{3,}[^e]ed", word))


def test_functions_are_not_named_by_past_participles():
    """`packed_bytes` says what it returns and `save_packed` what it does; `packed` does neither."""
    names = [
        f"{name}: {node.name}"
        for name, path in code_files().items()
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name not in STANDARD_TERMS
        if "_" not in node.name.strip("_") and is_participle(node.name.strip("_"))
    ]
    assert names == []


def test_only_tests_replace_functions_of_others():
    imports = re.compile(r"^\s*(from|import) unittest", re.MULTILINE)
    assert [n for n, path in code_files().items() if imports.search(path.read_text("utf-8"))] == []


if __name__ == "__main__":
    for (package, folder), lines in sorted(sizes().items()):
        print(f"{lines:6,} {package}/{folder}")
