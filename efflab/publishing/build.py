"""From one text to two executed notebooks: reading the sources, building, and checking the step.

`notebooks/src/NN_name.py` (jupytext's percent format) is what people edit. Its text cells stand
twice, tagged `en` and `zh`, around shared code cells; `build` makes an executed notebook of each.
Every function takes the `notebooks` folder, so that tests can work on one of their own.
"""

import ast
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import jupytext
import nbformat
from nbformat import NotebookNode

from efflab.errors import require, require_one_of
from efflab.publishing.catalog import (
    LANGUAGES,
    NOTEBOOKS,
    CellFailed,
    built_path,
    find,
    sources,
    write_atomically,
)

MIME = "application/vnd.efflab.{}+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
PRELUDE = "from efflab.lab import prepare_build; prepare_build()"
KEPT = ("tags", "jupyter", "editable")
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


# --- Sources ---------------------------------------------------------------------------------


def read_source(path: Path) -> NotebookNode:
    return jupytext.read(path, fmt="py:percent")


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def parameters(notebook: NotebookNode) -> dict:
    """Name -> default of the notebook's one `parameters` cell, which holds plain literals."""
    cells = [c for c in notebook.cells if "parameters" in tags(c)]
    require(len(cells) == 1, "parameters cells", len(cells), "exactly one")
    statements = ast.parse(cells[0].source).body
    return {s.targets[0].id: ast.literal_eval(s.value) for s in statements}


def is_stub(cell: NotebookNode) -> bool:
    """Whether the learner is to fill this code cell in."""
    return cell.cell_type == "code" and "exercise" in tags(cell)


def exercise_name(cell: NotebookNode) -> str:
    """ "03-1" of a cell tagged "ex-03-1"."""
    names = [t.removeprefix("ex-") for t in tags(cell) if t.startswith("ex-")]
    require(len(names) == 1, "tags", tags(cell), 'one exercise such as "ex-03-1"')
    return names[0]


def solution(source: NotebookNode, name: str, language: str) -> str:
    """The code that can stand in the stub of exercise `name`, out of its folded solution."""
    wanted = {language, "solution", f"ex-{name}"}
    found = [c.source for c in source.cells if wanted <= set(tags(c))]
    require(len(found) == 1, f"solutions of {name} in {language}", len(found), "exactly one")
    blocks = re.findall(r"```python\n(.*?)\n```", found[0], re.DOTALL)
    require(len(blocks) == 1 and "<details>" in found[0], name, found[0], "one folded python block")
    return blocks[0]


# --- One language of a source ----------------------------------------------------------------


# A line that ends, and one that begins, with a Chinese character or punctuation mark.
CHINESE_BREAK = re.compile(r"(?<=[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef])\n(?=[\u4e00-\u9fff])")


def joined(text: str) -> str:
    """Chinese prose without its line breaks, which a page would show as spaces.

    >>> joined("核心，\\n随长度增长")
    '核心，随长度增长'
    """
    return CHINESE_BREAK.sub("", text)


def translate(source: NotebookNode, language: str) -> NotebookNode:
    """The notebook in one language, not yet executed: its text cells, and all the code.

    Cell ids are hashes of what the cell says, so an edit changes no other cell's id.
    """
    require_one_of("language", language, LANGUAGES)
    other = {"en": "zh", "zh": "en"}[language]
    notebook, seen = nbformat.v4.new_notebook(metadata=METADATA), Counter()
    for cell in source.cells:
        if other in tags(cell):
            continue
        text = cell.source
        if "parameters" in tags(cell):
            text = text.replace('language = "en"', f'language = "{language}"', 1)
        if language == "zh" and cell.cell_type == "markdown":
            text = joined(text)
        new = {"code": nbformat.v4.new_code_cell, "markdown": nbformat.v4.new_markdown_cell}
        cell_id = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[cell_id] += 1
        cell_id += f"-{seen[cell_id]}" if seen[cell_id] > 1 else ""
        metadata = {key: cell.metadata[key] for key in KEPT if key in cell.metadata}
        notebook.cells.append(new[cell.cell_type](text, id=cell_id, metadata=metadata))
    return notebook


def differences(path: Path, language: str) -> list[str]:
    """In which cells the built notebook says something else than its source; [] when in step.

    Compares type, source and tags: never times of files, and no outputs.
    """
    target = built_path(path, language)
    if not target.exists():
        return [f"{target.name} ({language}) is not built"]

    def said(notebook):
        return [(c.cell_type, c.source.strip(), tuple(tags(c))) for c in notebook.cells]

    wanted = said(translate(read_source(path), language))
    found = said(nbformat.read(target, as_version=4))
    lines = [
        f"{target.name} ({language}), cell {i}: {b[1][:60]!r} instead of {a[1][:60]!r}"
        for i, (a, b) in enumerate(zip(wanted, found, strict=False))
        if a != b
    ]
    if len(wanted) != len(found):
        lines.append(f"{target.name} ({language}): {len(found)} cells instead of {len(wanted)}")
    return lines


# --- Executing -------------------------------------------------------------------------------


def plain(text: str) -> str:
    """Without the terminal's colour codes."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def title_of(cell: NotebookNode) -> str:
    """A cell's first line of code, to name it by."""
    lines = [line for line in cell.source.splitlines() if line and not line.startswith("#")]
    return (lines or [cell.source])[0][:60]


def execute(
    notebook: NotebookNode,
    cwd: Path,
    *,
    prelude: str = "",
    on_cell: Callable[[int, NotebookNode, float], None] = lambda *_: None,
    timeout: int = 600,
) -> NotebookNode:
    """Run every cell in place, in a fresh kernel that starts in `cwd`.

    `prelude` runs first and unseen. `on_cell(index, cell, seconds)` is called after each code
    cell. Raises `CellFailed`; no widget state and no times are stored.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        store_widget_state=False,
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=40"],
        resources={"metadata": {"path": str(cwd)}},
    )
    with client.setup_kernel():
        if prelude:
            reply = client.wait_for_reply(client.kc.execute(prelude, silent=True))
            if reply["content"]["status"] != "ok":
                raise CellFailed(plain("\n".join(reply["content"]["traceback"])))
        for index, cell in enumerate(notebook.cells):
            if cell.cell_type != "code":
                continue
            start = perf_counter()
            try:
                client.execute_cell(cell, index)
            except CellTimeoutError:
                raise CellFailed(f"cell {index} ran over {timeout} s:\n\n{cell.source}") from None
            except DeadKernelError:
                raise CellFailed(f"the kernel died in cell {index}:\n\n{cell.source}") from None
            except CellExecutionError as error:
                lines = [o for o in cell.outputs if o.output_type == "error"]
                trace = plain("\n".join(lines[-1].traceback)) if lines else str(error)
                raise CellFailed(f"cell {index} failed:\n\n{cell.source}\n\n{trace}") from None
            on_cell(index, cell, perf_counter() - start)
    return notebook


# --- Building --------------------------------------------------------------------------------


def settle(notebook: NotebookNode, old: NotebookNode | None) -> None:
    """Take out of the outputs what differs from run to run and says nothing.

    Views of widgets that no longer live go; a picture whose figure is the same stays the old
    picture, byte for byte, for another browser or font would draw other pixels.
    """
    stored = {c.id: c for c in old.cells} if old else {}
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        for output in cell.outputs:
            output.get("data", {}).pop(WIDGET, None)
        cell.outputs = [o for o in cell.outputs if o.get("data", True)]
        cell.metadata = NotebookNode({k: v for k, v in cell.metadata.items() if k in KEPT})
        before = stored.get(cell.id, NotebookNode(outputs=[])).get("outputs", [])
        if [without_picture(o) for o in before] == [without_picture(o) for o in cell.outputs]:
            cell.outputs = before
    notebook.metadata = nbformat.from_dict(METADATA)


def without_picture(output: NotebookNode) -> dict:
    data = {k: v for k, v in output.get("data", {}).items() if k != "image/png"}
    # the execution's number, as a session that was saved by hand may count differently
    return {**output, "data": data, "execution_count": None, "metadata": None}


def build_one(path: Path, language: str, *, prelude: str = PRELUDE, say=print) -> Path:
    """Execute one source in one language and store the notebook; on failure the old one stays."""
    notebook, target = translate(read_source(path), language), built_path(path, language)
    target.parent.mkdir(parents=True, exist_ok=True)
    n_cells, name = len(notebook.cells), f"{path.stem[:2]} {language}"

    def on_cell(index, cell, seconds):
        say(f"{name}  cell {index + 1:2d} of {n_cells}  {seconds:6.2f} s  {title_of(cell)}")
        for output in cell.outputs:
            if output.get("name") == "stderr":
                say(f"{name}  warning: the cell prints to stderr: {plain(output.text)[:300]}")

    start = perf_counter()
    try:
        execute(notebook, target.parent, prelude=prelude, on_cell=on_cell)
    except CellFailed as error:
        raise CellFailed(f"{path.stem} ({language}): {error}") from None
    settle(notebook, nbformat.read(target, as_version=4) if target.exists() else None)
    nbformat.validate(notebook)
    write_atomically(target, nbformat.writes(notebook) + "\n")
    say(f"{name}  {perf_counter() - start:.1f} s in all, {target.stat().st_size / 1e3:.0f} kB")
    return target


def stored_outputs(kind: str, folder: Path = NOTEBOOKS) -> dict[str, list]:
    """What the English notebooks' cells stored under our own mime type "verdict" or "board".

    Number of the notebook -> the stored objects, in reading order.
    """
    found = {}
    for number, path in sources(folder).items():
        target = built_path(path, "en")
        if not target.exists():
            continue
        outputs = [
            output["data"][MIME.format(kind)]
            for cell in nbformat.read(target, as_version=4).cells
            for output in cell.get("outputs", [])
            if MIME.format(kind) in output.get("data", {})
        ]
        if outputs:
            found[number] = outputs
    return found


def collect(folder: Path = NOTEBOOKS) -> None:
    """Write data/verdicts.json and data/board.json from what the built notebooks hold."""
    points = [p for stored in stored_outputs("board", folder).values() for p in stored]
    board = {(p["technique"], p["model"]): p for p in points}  # the later notebook's point stands
    files = {
        "verdicts.json": stored_outputs("verdict", folder),
        "board.json": {"points": list(board.values())},
    }
    for name, content in files.items():
        text = json.dumps(content, indent=1, ensure_ascii=False)
        write_atomically(folder.parent / "data" / name, text + "\n")


def build(
    names: list[str] | None = None,
    *,
    languages: tuple[str, ...] = LANGUAGES,
    folder: Path = NOTEBOOKS,
    prelude: str = PRELUDE,
    say=print,
) -> None:
    """Build the named notebooks (all by default), then the ledger and the board from them all."""
    paths = [find(name, folder) for name in names or sources(folder)]
    for path in paths:
        for language in languages:
            build_one(path, language, prelude=prelude, say=say)
    collect(folder)
