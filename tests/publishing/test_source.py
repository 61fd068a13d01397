"""A source as two notebooks, without a kernel: cells, ids, links, solutions, differences."""

import nbformat
import pytest
from solving import exercise_name, is_stub, solution, solve

from efflab.publishing.catalog import built_path, find
from efflab.publishing.source import (
    code_cells,
    differences,
    parameters,
    read_built,
    read_notebook,
    read_source,
    tags,
    translate,
)

MORE = """

# %%
print(language, n * 2)

# %% [markdown] tags=["zh"]
# 第一行，
# 第二行。

# %% tags=["exercise", "ex-90-1"]
answer_1 = ...

# %% [markdown] tags=["en", "solution", "ex-90-1"]
# <details><summary>Solution</summary>
#
# ```python
# answer_1 = n
# ```
# </details>
"""


@pytest.fixture
def path(toy):
    path = find("90", toy)
    path.write_text(path.read_text(encoding="utf-8") + MORE, encoding="utf-8")
    return path


def store(path, language):
    notebook = translate(read_source(path), language)
    target = built_path(path, language)
    target.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, target)
    return target


def test_each_language_has_its_texts_and_all_the_code(path):
    english, chinese = (translate(read_source(path), x) for x in ("en", "zh"))
    assert english.cells[0].source == "# A toy\n\n[Chinese edition](zh/90_toy.ipynb)"
    assert chinese.cells[0].source == "# 玩具\n\n[英文版](../90_toy.ipynb)"
    assert chinese.cells[-2].source == "第一行，第二行。"
    codes = [[c.source for c in code_cells(notebook)] for notebook in (english, chinese)]
    assert codes[0][0] == 'language = "en"\nn = 3'
    assert codes[1][0] == 'language = "zh"\nn = 3'
    assert codes[0][1:] == codes[1][1:]
    assert len(codes[0]) == 5
    assert not any("edition" in cell.source for cell in english.cells[1:])
    assert [tags(c) for c in english.cells[:2]] == [["en"], ["parameters"]]
    with pytest.raises(ValueError, match="language='fr'"):
        translate(read_source(path), "fr")


def test_the_same_cell_again_has_an_id_of_its_own(path):
    ids = [cell.id for cell in translate(read_source(path), "en").cells]
    assert len(set(ids)) == len(ids)
    assert [i for i in ids if "-" in i] == [f"{ids[2]}-2"]


def test_parameters_are_the_literals_of_their_one_cell(path):
    assert parameters(read_source(path)) == {"language": "en", "n": 3}
    source = read_source(path)
    source.cells[2].metadata.tags = []
    with pytest.raises(ValueError, match="parameters cells=0: expected exactly one"):
        parameters(source)


def test_a_solution_goes_into_its_stub(path):
    source = read_source(path)
    notebook = translate(source, "en")
    (stub,) = filter(is_stub, notebook.cells)
    assert exercise_name(stub) == "90-1"
    solve(notebook, source, "en")
    assert stub.source == "answer_1 = n"
    with pytest.raises(ValueError, match=r"solutions of 90-1 in zh=0"):
        solution(source, "90-1", "zh")
    source.cells[-1].metadata.tags.remove("en")  # then it is both languages'
    assert solution(source, "90-1", "zh") == solution(source, "90-1", "en") == "answer_1 = n"
    summaries = [translate(source, x).cells[-1].source.splitlines()[0] for x in ("en", "zh")]
    assert summaries == ["<details><summary>Solution</summary>", "<details><summary>答案</summary>"]
    stub.metadata.tags = ["exercise"]
    with pytest.raises(ValueError, match=r'one exercise such as "ex-03-1"'):
        exercise_name(stub)


@pytest.mark.parametrize("old", ["<details>", "```python"])
def test_a_solution_is_one_folded_block(path, old):
    source = read_source(path)
    source.cells[-1].source = source.cells[-1].source.replace(old, "")
    with pytest.raises(ValueError, match="expected one folded python block"):
        solution(source, "90-1", "en")


def test_what_differs_is_named_by_its_cell(path, edit):
    assert differences(path, "en") == ["90_toy.ipynb (en) is not built"]
    target = store(path, "en")
    assert differences(path, "en") == []
    edit("n * 2)\n\n# %% tags", "n * 3)\n\n# %% tags")
    (line,) = differences(path, "en")
    assert line == (
        "90_toy.ipynb (en), cell 2: 'print(language, n * 2)' instead of 'print(language, n * 3)'"
    )
    notebook = nbformat.read(target, as_version=4)
    del notebook.cells[-1]
    nbformat.write(notebook, target)
    _, line = differences(path, "en")
    assert line.startswith("90_toy.ipynb (en), cell 6: None instead of '<details>")
    target.write_text("{}", encoding="utf-8")
    (line,) = differences(path, "en")
    assert line.startswith("90_toy.ipynb is damaged, no notebook (")


def test_a_damaged_notebook_is_named_with_the_reason_and_a_missing_one_is_missing(tmp_path):
    path = tmp_path / "90_toy.ipynb"
    with pytest.raises(FileNotFoundError):
        read_notebook(path)
    path.write_text("no json", encoding="utf-8")
    with pytest.raises(ValueError, match=r"^90_toy\.ipynb is damaged, .*\(Expecting value"):
        read_notebook(path)
    with pytest.raises(ValueError, match=r"; efflab build 90 makes it anew$"):
        read_built(path)
