"""Reads and checks what the built notebooks stored in data/: verdicts and the board."""

from collections.abc import Mapping
from pathlib import Path

from efflab.base.json_files import read_json
from efflab.errors import require, require_figure, require_interval, wrong_type
from efflab.rules import require_type

RECORD = dict(form=object, claim=str, holds=object, outcome=str, parts=list)
PART: dict[str, object] = dict(since=str | None, figures=list)
PART |= dict.fromkeys(("id", "outcome", "rule", "condition", "remark", "reason", "basis"), str)
FIGURE = dict(id=str, name=str, value=object, unit=str, kind=str, low=object, high=object)
TEMPLATE = dict(template=object, values=object)
"""Further keys of a figure whose name has fields."""
POINT: dict[str, object] = dict.fromkeys(("technique", "model", "notebook", "kind"), str)
POINT |= dict.fromkeys(("bytes", "band", "time", "time_low", "time_high"), float)
POINT |= dict.fromkeys(("quality", "quality_low", "quality_high"), float)
REMEDY = "run efflab build"


def read_verdicts(path: Path) -> dict[str, list[dict]]:
    """data/verdicts.json: {notebook: its records}, of the current form, all numbers finite."""
    return read_json(path, check=_require_verdicts, remedy=REMEDY)


def read_board(path: Path) -> list[dict]:
    """The points of data/board.json, complete and finite; [] without a file."""
    if not path.exists():
        return []
    return read_json(path, check=_require_board, remedy=REMEDY)["points"]


def _require_verdicts(verdicts: dict) -> None:
    for notebook, records in verdicts.items():
        for record in require_type(f"notebook {notebook}", records, list):
            name = f"record of {record.get('claim')}" if isinstance(record, dict) else "record"
            require_object(name, record, RECORD)
            for part in record["parts"]:
                require_object(f"part of {name}", part, PART)
                for figure in part["figures"]:
                    require_object(f"figure of {name}", figure, FIGURE, TEMPLATE)
                    ends = figure["value"], figure["low"], figure["high"]
                    require_figure(f"{name}: {figure['name']}", *ends)


def _require_board(board: dict) -> None:
    require_object("board", board, dict(points=list))
    for point in board["points"]:
        require_object("point", point, POINT)
        for key in ("time", "quality"):
            ends = point[key], point[f"{key}_low"], point[f"{key}_high"]
            require_interval(f"{point['technique']} of {point['model']}: {key}", *ends)


def figures_of(record: dict) -> dict[str, dict]:
    """{id: figure} of a stored record, over its parts; the deciding one of the first part first.

    A figure of two parts that differs between them is a `ValueError`.
    """
    figures: dict[str, dict] = {}
    for figure in (figure for part in record["parts"] for figure in part["figures"]):
        same = figures.setdefault(figure["id"], figure) == figure
        require(same, f"{record['claim']}: {figure['id']}", figure, "the same in all parts")
    return figures


def require_object(name: str, value, types: Mapping, more: Mapping | None = None) -> None:
    """`value` must be an object with these keys, all or none of `more`, and no other.

    Each key has an annotation, which its value must fit (`efflab.rules`).
    """
    if not isinstance(value, dict):
        raise wrong_type(name, value, "an object")
    every = {**types, **(more or {})}
    require(value.keys() in (types.keys(), every.keys()), name, sorted(value), f"{sorted(types)}")
    for key, item in value.items():
        require_type(f"{name}: {key}", item, every[key])
