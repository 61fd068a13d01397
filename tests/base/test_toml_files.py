"""A TOML file read again and again."""

import tomllib

import pytest

from efflab.base.toml_files import read_toml


def test_each_reader_has_tables_of_its_own(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text('[one]\nvalues = [1, 2]\nname = "名"\n', encoding="utf-8")
    first = read_toml(path)
    assert first == {"one": {"values": [1, 2], "name": "名"}}
    first["one"]["values"].append(3)
    assert read_toml(path)["one"]["values"] == [1, 2]


def test_a_changed_file_is_read_anew(tmp_path):
    path = tmp_path / "a.toml"
    for text, expected in (("x = 1", 1), ("x = 2", 2), ("x = 1", 1)):
        path.write_text(text)
        assert read_toml(path) == {"x": expected}
    path.write_text("x = ")
    with pytest.raises(tomllib.TOMLDecodeError):
        read_toml(path)
