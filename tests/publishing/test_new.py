"""`efflab new`: what it makes stands on its own feet, in a tree that holds nothing else."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from efflab.publishing import new
from efflab.publishing.catalog import ROOT, catalog
from efflab.publishing.source import read_source, translate

TESTS = (
    "conftest.py",
    "offline.py",
    "order.py",
    "notebooks/conftest.py",
    "notebooks/test_explorers.py",
    "notebooks/test_verdicts.py",
    "publishing/solving.py",
    "publishing/test_notebooks.py",
    "publishing/test_probes.py",
)


@pytest.fixture
def tree(tmp_path):
    """The package, no rooms, the claims, an empty catalog, and the tests of notebooks."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "efflab", tmp_path / "efflab", ignore=ignored)
    rooms = ROOT / "notebooks" / "efflab_rooms" / "__init__.py"
    (tmp_path / "notebooks" / "efflab_rooms").mkdir(parents=True)
    shutil.copy(rooms, tmp_path / "notebooks" / "efflab_rooms")
    for name in TESTS:
        (tmp_path / "tests" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "tests" / name, tmp_path / "tests" / name)
    (tmp_path / "notebooks" / "src").mkdir(parents=True)
    (tmp_path / "notebooks" / "catalog.toml").write_text("# One table a notebook:\n")
    (tmp_path / "data").mkdir()
    for name in ("claims.toml", "rules.toml", "statements.toml"):
        shutil.copy(ROOT / "data" / name, tmp_path / "data")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def run(tree, *arguments):
    """A command in the tree, with the tree's own package."""
    environment = {**os.environ, "PYTHONPATH": f"{tree}{os.pathsep}{tree / 'notebooks'}"}
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_new_notebook_passes_its_tests_once_it_is_built(tree):
    said = run(tree, "efflab.cli", "new", "12", "running_sums")
    assert "notebooks/efflab_rooms/running_sums/verdicts.py" in said
    assert new.claims_of("12")  # so that verdicts are among what is tested
    written = [line for line in said.splitlines() if line.endswith(".py")]
    run(tree, "ruff", "check", *written)
    run(tree, "ruff", "format", "--check", *written)
    run(tree, "efflab.cli", "build", "12", "--busy")
    chosen = "test_running_sums.py or [running_sums or [12 or -12]"
    chosen += " or catalog_and_claims or every_room"
    run(tree, "pytest", "-p", "no:cacheprovider", "tests", "-k", chosen)
    assert (tree / "runs" / "probes" / "12_running_sums.ipynb").exists()


def test_without_a_claim_there_is_no_verdict(tree):
    written = new.new("90", "running_sums", root=tree)
    assert not [path for path in written if path.name == "verdicts.py"]
    unfilled = re.compile("{[{%]")
    assert not [path for path in written if unfilled.search(path.read_text(encoding="utf-8"))]
    source = read_source(tree / "notebooks" / "src" / "90_running_sums.py")
    for language, none in (("en", "**Claims** | none"), ("zh", "**论断** | 无")):
        cells = translate(source, language).cells
        assert none in cells[0].source
        assert not [c for c in cells if c.cell_type == "code" and "verdict" in c.source]
    assert catalog(tree / "notebooks")["90"]["claims"] == []


def test_the_entry_stands_in_its_place():
    before = '# head\n\n["03"]\nname = "03_a"\n\n["09"]\nname = "09_b"\n'
    entry = '["{}"]\nname = "{}_c"\n'
    assert new.with_entry(before, "05", entry.format("05", "05")) == (
        '# head\n\n["03"]\nname = "03_a"\n\n["05"]\nname = "05_c"\n\n["09"]\nname = "09_b"\n'
    )
    assert new.with_entry(before, "12", entry.format("12", "12")) == (
        '# head\n\n["03"]\nname = "03_a"\n\n["09"]\nname = "09_b"\n\n["12"]\nname = "12_c"\n'
    )


@pytest.mark.parametrize(
    ("number", "name", "message"),
    [
        ("3", "windows", "number='3': expected two digits"),
        ("１６", "windows", "number='１６': expected two digits"),
        ("٣٤", "windows", "number='٣٤': expected two digits"),
        ("00", "windows", "number='00': expected one not taken, unlike 00, 01"),
        ("90", "Windows", "name='Windows': expected small letters"),
        ("90", "two__bars", "name='two__bars': expected small letters"),
        ("90", "import", "name='import': expected small letters"),
        (
            "90",
            "gptq",
            "name='gptq': expected one not taken, but notebooks/efflab_rooms/gptq exists",
        ),
        ("90", "explorers", "but tests/notebooks/test_explorers.py exists"),
    ],
)
def test_what_is_taken_or_badly_named_is_refused(number, name, message):
    with pytest.raises(ValueError, match=message):
        new.new(number, name)
    assert not (ROOT / "notebooks" / "src" / f"{number}_{name}.py").exists()


def test_half_a_notebook_does_not_stay(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    for name in ("claims.toml", "rules.toml", "statements.toml"):
        shutil.copy(ROOT / "data" / name, tmp_path / "data")
    before = set(tmp_path.rglob("*.*"))

    def update(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(new, "update", update)  # the catalog's, which comes last
    with pytest.raises(OSError, match="No space left"):
        new.new("16", "sums", root=tmp_path)
    assert set(tmp_path.rglob("*.*")) == before
    assert not (tmp_path / "notebooks" / "efflab_rooms" / "sums").exists()
