"""The cache: it gives back what was made, makes anew what changed, and never stands in the way."""

import os
from pathlib import Path

import numpy as np
import pytest

from efflab import data
from efflab.base.cache import get_or_make


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.py"
    path.write_text("version 1")
    return path


@pytest.mark.parametrize(
    "value",
    [
        np.array([0, 7, 65535]),
        np.array([0, 65536]),
        np.array([-1]),
        [{"name": "é", "n": 1}],
        "text",
    ],
)
def test_gives_back_what_was_made(tmp_path, source, value):
    calls = []

    def make():
        calls.append(1)
        return value

    first, second = (get_or_make(tmp_path / "c", "x", [source], make) for _ in range(2))
    assert len(calls) == 1
    assert np.array_equal(first, value) if isinstance(value, np.ndarray) else first == value
    assert np.array_equal(second, value) if isinstance(value, np.ndarray) else second == value


def test_a_changed_source_makes_it_anew_and_leaves_no_old_file(tmp_path, source):
    folder = tmp_path / "c"
    assert get_or_make(folder, "x", [source], lambda: 1) == 1
    source.write_text("version 2")
    assert get_or_make(folder, "x", [source], lambda: 2) == 2
    (file,) = folder.iterdir()
    assert file.suffix == ".json"


def test_what_another_process_is_writing_stays(tmp_path, source):
    folder = tmp_path / "c"
    get_or_make(folder, "x", [source], lambda: 1)
    (file,) = folder.iterdir()
    part = folder / f"{file.name}.{os.getppid()}-0123abcd.part"
    part.write_text("half")
    source.write_text("version 2")
    get_or_make(folder, "x", [source], lambda: 2)
    assert part.read_text() == "half"
    assert not file.exists()


def test_another_kind_of_value_replaces_the_file(tmp_path, source):
    folder = tmp_path / "c"
    get_or_make(folder, "x", [source], lambda: "text")
    source.write_text("version 2")
    assert get_or_make(folder, "x", [source], lambda: np.array([3])).tolist() == [3]
    assert get_or_make(folder, "x", [source], lambda: 1 / 0).tolist() == [3]
    (file,) = folder.iterdir()
    assert file.suffix == ".npy"


@pytest.mark.parametrize("damage", [b"", b"{", b"\x93NUMPY", b"\xff\xfe"])
def test_a_damaged_file_is_made_anew(tmp_path, source, damage):
    folder = tmp_path / "c"
    get_or_make(folder, "x", [source], lambda: [1, 2])
    (file,) = folder.iterdir()
    file.write_bytes(damage)
    assert get_or_make(folder, "x", [source], lambda: [1, 2]) == [1, 2]
    assert file.read_bytes() == b"[1, 2]"


def test_a_file_that_needs_unpickling_is_not_read(tmp_path, source):
    folder = tmp_path / "c"
    get_or_make(folder, "x", [source], lambda: np.array([1]))
    (file,) = folder.iterdir()
    np.save(file, np.array([7], dtype=object), allow_pickle=True)
    assert get_or_make(folder, "x", [source], lambda: np.array([2])).tolist() == [2]


def test_only_the_old_file_of_its_own_name_goes(tmp_path, source):
    folder = tmp_path / "c"
    get_or_make(folder, "x", [source], lambda: 1)
    (old,) = folder.iterdir()
    part = old.with_suffix(".json.part")
    part.write_text("half of")
    other = folder / old.name.replace("x-", "y-")
    other.write_text("3")
    source.write_text("version 2")
    get_or_make(folder, "x", [source], lambda: 2)
    assert not old.exists()
    assert part.exists()
    assert other.exists()


def test_old_files_go_also_where_another_process_is_first(tmp_path, source, monkeypatch):
    folder = tmp_path / "c"
    get_or_make(folder, "x", [source], lambda: 1)
    (old,) = folder.iterdir()
    older = old.with_name(old.name.replace(old.stem[-16:], "0" * 16))
    older.write_text("0")
    unlink, gone = Path.unlink, []

    def late(path, missing_ok=False):
        if path in (old, older):
            os.remove(path)  # by the other
            gone.append(path)
        unlink(path, missing_ok)

    source.write_text("version 2")
    monkeypatch.setattr(Path, "unlink", late)
    assert get_or_make(folder, "x", [source], lambda: 2) == 2
    assert set(gone) == {old, older}
    assert [path.read_text() for path in folder.iterdir()] == ["2"]


def test_a_folder_that_cannot_be_made_costs_nothing(tmp_path, source):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert get_or_make(blocked / "c", "x", [source], lambda: 5) == 5


def test_tokens_are_the_same_from_the_cache():
    data.stdlib_tokens.cache_clear()
    again = data.stdlib_tokens("held-out")
    made = data.tokens_of(text for _, text in data.stdlib_files("held-out"))
    assert again.dtype == made.dtype
    assert np.array_equal(again, made)
