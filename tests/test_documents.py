"""The Markdown pages: their links lead somewhere, and both languages name the same things."""

import re
import shlex
from collections import Counter

import pytest

from efflab.cli import main, parser
from efflab.publishing.catalog import ROOT

CHINESE = "\n## 中文\n"
TWO_HALVES = ("README.md", "data/README.md", "docs/many-machines.md", "docs/pooling.md")
TWO_HALVES += ("docs/predictions.md",)
PAGES = (*TWO_HALVES, "CONTRIBUTING.md", "SECURITY.md", "docs/glossary.md", "docs/ledger.md")
GENERATED = re.compile(r"<!-- ([\w ]+): start .*?<!-- \1: end -->", re.DOTALL)
FENCED = re.compile(r"^```\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)")


def read(page: str) -> str:
    """A page's text without the tables that a report writes."""
    return GENERATED.sub("", (ROOT / page).read_text(encoding="utf-8"))


def halves(page: str) -> list[str]:
    return read(page).split(CHINESE)


def spans(text: str) -> set[str]:
    """What stands in backquotes within lines: commands, files and options."""
    return set(re.findall(r"`([^`\n]+)`", FENCED.sub("", text)))


def targets(text: str) -> set[str]:
    """The files that a text links to; pictures come in two languages."""
    return {path.replace(".zh.", ".") for path, _ in LINK.findall(text) if path}


def code(text: str) -> list[str]:
    """Fenced blocks without their comments."""
    return [re.sub(r" *#.*", "", block) for block in FENCED.findall(text)]


def anchors(text: str) -> set[str]:
    """The names that GitHub gives headings, as far as the pages use them."""
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head).lower().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page):
    for path, anchor in LINK.findall(read(page)):
        if path.startswith("http"):
            continue
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), path
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{path}#{anchor}"


@pytest.mark.parametrize("page", TWO_HALVES)
def test_the_chinese_half_names_all_that_the_english_half_names(page):
    english, chinese = halves(page)
    assert spans(english) - spans(chinese) == set()
    assert targets(english) - targets(chinese) == set()
    assert code(english) == code(chinese)
    rows = [Counter(line[:1] for line in half.splitlines())["|"] for half in (english, chinese)]
    assert rows[0] == rows[1], "rows of tables"


def test_a_thing_that_one_half_lacks_is_found():
    assert spans("`a b` and\n```\n`c`\n```\nor `d`") == {"a b", "d"}
    assert targets("[x](y.md#z) ![p](q.zh.png) [here](#z)") == {"y.md", "q.png"}
    assert code("```\nmake lab   # all\n```") == ["make lab\n"]
    assert anchors("# Many machines\n## 中文\n") == {"many-machines", "中文"}


def test_the_readme_names_every_command():
    commands = next(a for a in parser()._actions if a.choices).choices
    for half in halves("README.md"):
        named = {span.split()[1] for span in spans(half) if span.startswith("efflab ")}
        assert named == set(commands)


def test_every_published_file_has_its_source_in_both_halves():
    names = {path.stem for path in (ROOT / "data" / "published").glob("*.csv")}
    for half in halves("data/README.md"):
        assert names - spans(half) == set()


@pytest.mark.parametrize("half", [0, 1])
def test_what_the_readme_shows_of_a_command_is_what_it_prints(half, capsys):
    blocks = [b for b in FENCED.findall(halves("README.md")[half]) if b.startswith("$ efflab")]
    shown = re.findall(r"^\$ efflab (.*)\n((?:(?!\$ ).*\n)+)", "".join(blocks), re.MULTILINE)
    assert [words.split()[0] for words, _ in shown] == ["card", "advise"]
    for words, lines in shown:
        assert main(shlex.split(words)) == 0
        printed = capsys.readouterr().out.splitlines()
        expected = [line for line in lines.splitlines() if line not in ("", "...")]
        assert len(expected) > 5
        assert [line for line in expected if line not in printed] == []
