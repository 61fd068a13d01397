"""A record damaged anywhere is refused by file, place and remedy, and a damaged run is not kept."""

import json
from copy import deepcopy

import pytest

from efflab.experiments.record import EXPERIMENTS, read_record, run_cases

NAMES = sorted(path.stem for path in EXPERIMENTS.glob("*.json"))


def places(value, path=()):
    """The path of everything inside, objects and lists too; of a list's items the last alone."""
    inner = value.items() if isinstance(value, dict) else list(enumerate(value))[-1:]
    for key, item in inner:
        yield (*path, key)
        if isinstance(item, dict | list):
            yield from places(item, (*path, key))


def changed(record, path, to):
    copy = deepcopy(record)
    where = copy
    for key in path[:-1]:
        where = where[key]
    if where[path[-1]] == to and type(where[path[-1]]) is type(to):
        return None
    where[path[-1]] = to
    return copy


def refused(path, record, tmp_path):
    """Whether the record is refused in a line that names file, place and remedy."""
    (tmp_path / f"{path}.json").write_text(json.dumps(record), encoding="utf-8")
    try:
        read_record(path, folder=tmp_path)
    except ValueError as error:
        said = str(error)
    else:
        return False
    assert said.startswith(f"{path}.json is damaged (")
    assert said.endswith(f"; restore it, or `efflab experiment {path}` makes it anew")
    assert "\n" not in said
    return True


@pytest.mark.parametrize("name", NAMES)
def test_null_or_a_number_that_is_none_is_refused_wherever_it_stands(name, tmp_path):
    """Null may stand only where a run leaves something open, or an old record does not tell it."""
    record = json.loads((EXPERIMENTS / f"{name}.json").read_text(encoding="utf-8"))
    for path in [p for p in places(record) if p[2:3] != ("settings",)]:
        open_there = {"group_size", "isa", "width", "windows", "features", "commit", "models"}
        open_there |= {"versions", "mb_step", "mhz"}
        for wrong in (float("nan"), *([None] if open_there.isdisjoint(path) else [])):
            other = changed(record, path, wrong)
            assert other is None or refused(name, other, tmp_path), (path, wrong)


@pytest.mark.parametrize("whole", [None, [], 7, "x", {}, {"name": "mixer-digits"}])
def test_a_file_of_another_kind_is_refused(whole, tmp_path):
    assert refused("mixer-digits", whole, tmp_path)


RUNS = ("machines", 0, "runs")


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (("name",), "another"),
        (("machines",), []),
        (("machines", 0, "machine", "threads"), "2"),
        (("machines", 0, "machine", "features"), {"avx2": "yes"}),
        (("machines", 0, "complete"), 1),
        (("machines", 0, "provenance"), []),
        (RUNS, []),
        ((*RUNS, 0, "seed"), "0"),
        ((*RUNS, 0, "seed"), True),
        ((*RUNS, 0, "made"), 7),
        ((*RUNS, 3, "mixer"), "0.9"),
        ((*RUNS, 3, "mixer"), True),
        ((*RUNS, 3, "mixer"), [0.9, "0.8"]),
        ((*RUNS, 3), []),
    ],
)
def test_another_type_is_refused(path, wrong, tmp_path):
    text = (EXPERIMENTS / "mixer-digits.json").read_text(encoding="utf-8")
    other = changed(json.loads(text), path, wrong)
    assert refused("mixer-digits", other, tmp_path)


@pytest.mark.parametrize(
    "result", [dict(loss=float("nan")), dict(loss=None), dict(rows=[{"x": 1e999}])]
)
def test_a_run_that_is_no_number_is_not_kept(result, tmp_path):
    with pytest.raises((TypeError, ValueError), match=r"run\.(loss|rows\.x)="):
        run_cases("toy", [dict(seed=0)], lambda seed: result, settings={}, folder=tmp_path)
    assert not (tmp_path / "toy.json").exists()
