"""Reads and checks what the built notebooks stored in data/: verdicts and the board."""

from collections.abc import Iterable
from pathlib import Path

from efflab.arguments import check_arguments
from efflab.base.json_files import read_json
from efflab.errors import (
    require,
    require_figure,
    require_finite,
    require_interval,
    wrong_type,
)
from efflab.rules import require_type

RECORD = {"form", "claim", "holds", "outcome", "parts"}
PART_TEXTS = ("id", "outcome", "rule", "condition", "remark", "reason", "basis")
FIGURE = {"id", "name", "value", "unit", "kind", "low", "high"}
TEMPLATE = {"template", "values"}
"""Further keys of a figure whose name has fields."""
POINT = {
    *("technique", "model", "notebook", "kind", "bytes", "band"),
    *("time", "time_low", "time_high", "quality", "quality_low", "quality_high"),
}
REMEDY = "run efflab build"


@check_arguments
def read_verdicts(path: Path) -> dict[str, list[dict]]:
    """data/verdicts.json: {notebook: its records}, of the current form, all numbers finite."""
    return read_json(path, check=_require_verdicts, remedy=REMEDY)


@check_arguments
def read_board(path: Path) -> list[dict]:
    """The points of data/board.json, complete and finite; [] without a file."""
    if not path.exists():
        return []
    return read_json(path, check=_require_board, remedy=REMEDY)["points"]


def _require_verdicts(verdicts: dict) -> None:
    for notebook, records in verdicts.items():
        for record in require_type(f"notebook {notebook}", records, list):
            _require_record(record)


def _require_board(board: dict) -> None:
    require_keys("board", board, {"points"})
    for point in require_type("points", board["points"], list):
        require_keys("point", point, POINT)
        _require_texts("point", point, ("technique", "model", "notebook", "kind"))
        name = f"{point['technique']} of {point['model']}"
        for key in ("bytes", "band"):
            require_finite(f"{name}: {key}", point[key])
        for key in ("time", "quality"):
            ends = point[key], point[f"{key}_low"], point[f"{key}_high"]
            require_interval(f"{name}: {key}", *ends)


def _require_record(record) -> None:
    name = f"record of {record.get('claim')}" if isinstance(record, dict) else "record"
    require_keys(name, record, RECORD)
    _require_texts(name, record, ("claim", "outcome"))
    for part in require_type(f"parts of {name}", record["parts"], list):
        _require_part(name, part)


def _require_part(name: str, part) -> None:
    require_keys(f"part of {name}", part, {*PART_TEXTS, "since", "figures"})
    _require_texts(f"part of {name}", part, PART_TEXTS)
    require_type(f"since of {name}", part["since"], str | None)
    for figure in require_type(f"figures of {name}", part["figures"], list):
        require_keys(f"figure of {name}", figure, FIGURE, TEMPLATE)
        _require_texts(f"figure of {name}", figure, ("id", "name", "unit", "kind"))
        ends = figure["value"], figure["low"], figure["high"]
        require_figure(f"{name}: {figure['name']}", *ends)


@check_arguments
def figures_of(record: dict) -> dict[str, dict]:
    """{id: figure} of a stored record, over its parts; the deciding one of the first part first.

    A figure of two parts that differs between them is a `ValueError`.
    """
    figures: dict[str, dict] = {}
    for figure in (figure for part in record["parts"] for figure in part["figures"]):
        same = figures.setdefault(figure["id"], figure) == figure
        require(same, f"{record['claim']}: {figure['id']}", figure, "the same in all parts")
    return figures


@check_arguments
def require_keys(name: str, value, keys: set[str], more: Iterable[str] = ()) -> None:
    """`value` must be an object with these keys, all or none of `more`, and no other."""
    if not isinstance(value, dict):
        raise wrong_type(name, value, "an object")
    fits = value.keys() in (keys, keys | set(more))
    require(fits, name, sorted(value), f"{sorted(keys)}")


def _require_texts(name: str, value: dict, keys: Iterable[str]) -> None:
    for key in keys:
        require_type(f"{name}: {key}", value[key], str)
