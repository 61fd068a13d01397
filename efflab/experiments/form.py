"""The format of an experiment's record, checked when it is written and when it is read."""

from collections.abc import Iterator

from efflab.base.stored import require_keys
from efflab.errors import require, require_finite, require_int
from efflab.rules import require_type

BLOCK = {"machine", "settings", "models", "complete", "provenance", "runs"}
MACHINE = {"cpu", "features", "threads"}
MADE = {"command", "date", "commit", "versions"}
NULLABLE = {"group_size", "isa", "width", "windows"}
"""Keys of a run that may be null: no groups, all instructions, full width, no window."""


def require_record(name: str, record: dict) -> None:
    """Refuse an invalid record, naming the place: `machines[0].runs[3].loss=None: ...`."""
    require_keys("record", record, {"name", "machines"})
    require(record["name"] == name, "name", record["name"], f"{name!r}")
    blocks = require_type("machines", record["machines"], list)
    require(bool(blocks), "machines", blocks, "at least one")
    for i, block in enumerate(blocks):
        _require_block(f"machines[{i}]", block)


def _require_block(place: str, block: dict) -> None:
    require_keys(place, block, BLOCK)
    require_machine(f"{place}.machine", block["machine"])
    require_type(f"{place}.complete", block["complete"], bool)
    require_type(f"{place}.settings", block["settings"], dict)
    for name, sha256 in require_type(f"{place}.models", block["models"], dict).items():
        require_type(f"{place}.models.{name}", sha256, str | None)
    provenance = require_type(f"{place}.provenance", block["provenance"], list)
    for i, entry in enumerate(provenance):
        _require_provenance(f"{place}.provenance[{i}]", entry)
    runs = require_type(f"{place}.runs", block["runs"], list)
    require(
        bool(runs) and bool(provenance), f"{place}.runs", runs, "at least one, and what made it"
    )
    for i, run in enumerate(runs):
        require_run(f"{place}.runs[{i}]", run)
        require_int(f"{place}.runs[{i}].made", run.get("made"), 0, len(provenance) - 1)
    _require_alike(f"{place}.runs", runs)


def require_machine(place: str, machine: dict) -> None:
    """A machine has a CPU, threads, and features (True or False each; null in old records)."""
    require_keys(place, machine, MACHINE)
    require_type(f"{place}.cpu", machine["cpu"], str)
    require_int(f"{place}.threads", machine["threads"])
    features = require_type(f"{place}.features", machine["features"], dict | None)
    for name, has in (features or {}).items():
        require_type(f"{place}.features.{name}", has, bool)


def _require_provenance(place: str, entry: dict) -> None:
    require_keys(place, entry, MADE, ["rules"])
    for content in require_type(f"{place}.rules", entry.get("rules", []), list):
        require_type(f"{place}.rules", content, str)
    for key in ("command", "date"):
        require_type(f"{place}.{key}", entry[key], str)
    require_type(f"{place}.commit", entry["commit"], str | None)
    for name, version in require_type(f"{place}.versions", entry["versions"], dict).items():
        require_type(f"{place}.versions.{name}", version, str | None)


def require_run(place: str, run: dict) -> None:
    """A run has a seed and finite numbers, and null only under the keys in `NULLABLE`."""
    require_type(place, run, dict)
    require_int(f"{place}.seed", run.get("seed"), 0)
    for path, value in _leaves(run):
        where = f"{place}.{'.'.join(path)}"
        if value is None:
            allowed = "no null but in " + ", ".join(sorted(NULLABLE))
            require(not NULLABLE.isdisjoint(path), where, value, allowed)
        elif not isinstance(value, bool | str):
            require_finite(where, value)


def _require_alike(place: str, runs: list[dict]) -> None:
    """Values at the same path must have the same type in all runs: number, text or bool."""
    kinds: dict[tuple[str, ...], type] = {}
    for i, run in enumerate(runs):
        for path, value in _leaves(run):
            if value is not None:
                kind = float if type(value) is int else type(value)
                where, allowed = f"{place}[{i}].{'.'.join(path)}", kinds.setdefault(path, kind)
                require(kind is allowed, where, value, f"a {allowed.__name__}, as in other runs")


def _leaves(value, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """(path, value) of all scalars; a list's items share its path."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item, path)
    else:
        yield path, value
