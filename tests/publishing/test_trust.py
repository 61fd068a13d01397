"""Only what git ships unchanged is trusted."""

import subprocess

import nbformat
import pytest
from nbformat import v4
from nbformat.sign import NotebookNotary

from efflab.publishing import trust as trusting
from efflab.publishing.trust import trust, unchanged_notebooks


@pytest.mark.parametrize("word", ["ls-files", "diff"])
def test_nothing_is_trusted_where_git_fails(tmp_path, monkeypatch, word):
    answers = {"ls-files": "notebooks/a.ipynb\0", "diff": ""} | {word: None}
    monkeypatch.setattr(trusting, "ask_git", lambda root, asked, *_: answers[asked])
    assert unchanged_notebooks(tmp_path) == []


def test_only_notebooks_that_git_has_and_nobody_changed_are_trusted(tmp_path, monkeypatch):
    folder = tmp_path / "notebooks"
    (folder / "zh").mkdir(parents=True)
    assert unchanged_notebooks(tmp_path) == []  # no git

    def write(name, source):
        notebook = v4.new_notebook(cells=[v4.new_code_cell(source)])
        notebook.cells[0].outputs = [v4.new_output("display_data", {"text/html": source})]
        nbformat.write(notebook, folder / name)

    for name in ("same.ipynb", "zh/same.ipynb", "changed.ipynb"):
        write(name, "1")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    write("changed.ipynb", "2")
    write("new.ipynb", "3")
    chosen = unchanged_notebooks(tmp_path)
    assert sorted(p.relative_to(folder).as_posix() for p in chosen) == [
        "same.ipynb",
        "zh/same.ipynb",
    ]

    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    trust(chosen)
    trusted = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.ipynb")
        if NotebookNotary().check_signature(nbformat.read(path, as_version=4))
    }
    assert trusted == {"same.ipynb", "zh/same.ipynb"}
