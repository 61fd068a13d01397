"""The README's tables, and which files a report writes."""

import pytest
from ledgers import SMALL, store

from efflab.publishing import readme

FILES = ("README.md", "docs/ledger.md", "docs/ledger.html")


def test_text_between_markers_is_replaced_once():
    start, end = readme.START.format("a"), readme.END.format("a")
    text = f"before\n{start}\nold\n{end}\nafter"
    assert readme.update_section(text, "a", "new") == f"before\n{start}\nnew\n{end}\nafter"
    for broken in ("before", f"{start} and no end", f"{end}{start}"):
        with pytest.raises(ValueError, match=r"README\.md: expected the lines"):
            readme.update_section(broken, "a", "new")


@pytest.mark.parametrize(
    ("language", "row"),
    [
        (
            "en",
            "| 90 | [A toy](notebooks/90_toy.ipynb) | [玩具](notebooks/zh/90_toy.ipynb) "
            "| 5 | that it works |",
        ),
        (
            "zh",
            "| 90 | [玩具](notebooks/zh/90_toy.ipynb) | [A toy](notebooks/90_toy.ipynb) "
            "| 5 | 它能用 |",
        ),
    ],
)
def test_a_notebooks_row_begins_with_the_edition_in_its_language(root, language, row):
    head, _, *rows = readme.notebooks(root, language).splitlines()
    assert rows == [row]
    assert (
        head
        == {
            "en": "|  | notebook | 中文 | minutes | what you find out |",
            "zh": "|  | 笔记本 | English | 分钟 | 你会弄清楚什么 |",
        }[language]
    )


def test_the_chinese_map_has_a_dash_for_what_is_not_written(root):
    rows = readme.chinese_map(root).splitlines()[2:]
    assert [row.split(" | ")[1] for row in rows] == ["甲或乙。", "丙。", "丁。"]
    assert rows[0].split(" | ")[2] == "成立 ✓✓"
    assert rows[2].split(" | ")[2:4] == [readme.NOT_YET, readme.NOT_YET]


def test_a_report_writes_what_is_out_of_date_and_says_so(root):
    lines = []
    readme.report(root, say=lines.append)
    assert lines[1:] == [f"{name} brought up to date" for name in FILES]
    whole = {name: (root / name).read_text(encoding="utf-8") for name in FILES}
    assert whole["README.md"].startswith("before\n")
    assert whole["README.md"].endswith("\nafter\n")
    assert "[A toy](notebooks/90_toy.ipynb)" in whole["README.md"]
    for stale in ("", "~~~"):  # sorts before and after what it should be
        (root / "docs" / "ledger.md").write_text(stale, encoding="utf-8")
        del lines[:]
        readme.report(root, say=lines.append)
        assert lines[1:] == ["docs/ledger.md brought up to date"]
        assert {name: (root / name).read_text(encoding="utf-8") for name in FILES} == whole
    store(root, {"90": [SMALL]})
    del lines[:]
    readme.report(root, say=lines.append)
    assert lines[1:] == [f"{name} brought up to date" for name in FILES]
