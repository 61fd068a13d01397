"""Which notebooks there are, found by any of their names."""

from pathlib import Path

import pytest

from efflab.publishing.catalog import NOTEBOOKS, ROOT, built_path, catalog, find, sources


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "src").mkdir()
    for name in ("03_c.py", "01_a.py", "notes.py", "1_b.py"):
        (tmp_path / "src" / name).touch()
    return tmp_path


def test_sources_are_those_with_a_number_in_order(folder):
    found = {number: path.name for number, path in sources(folder).items()}
    assert list(found.items()) == [("01", "01_a.py"), ("03", "03_c.py")]


@pytest.mark.parametrize("name", ["03", "3", "03_c", "03_c.py", "03_c.ipynb"])
def test_a_notebook_is_found_by_any_of_its_names(folder, name):
    assert find(name, folder) == folder / "src" / "03_c.py"


@pytest.mark.parametrize("name", ["2", "003", "c", ""])
def test_an_unknown_notebook_is_refused_with_those_there_are(folder, name):
    with pytest.raises(ValueError, match=f"notebook='{name}': expected one of 01_a, 03_c"):
        find(name, folder)


def test_the_catalog_is_in_order(folder):
    (folder / "catalog.toml").write_text('["03"]\nminutes = 1\n["01"]\nminutes = 2\n')
    assert list(catalog(folder).items()) == [("01", {"minutes": 2}), ("03", {"minutes": 1})]
    assert list(catalog()) == list(sources())


def test_a_built_notebook_lies_beside_the_sources():
    source = NOTEBOOKS / "src" / "03_sparse_attention.py"
    assert built_path(source, "en") == ROOT / "notebooks" / "03_sparse_attention.ipynb"
    assert built_path(source, "zh") == Path(ROOT, "notebooks", "zh", "03_sparse_attention.ipynb")
