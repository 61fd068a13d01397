"""The format of an experiment's record, checked when it is written and when it is read."""

from collections.abc import Iterator

from efflab.base.stored import require_object
from efflab.errors import require, require_finite, require_int
from efflab.rules import Size, require_type

TEXTS = dict[str, str | None]
RECORD = dict(name=str, machines=list)
BLOCK = dict(machine=dict, settings=dict, models=TEXTS, complete=bool, provenance=list, runs=list)
MACHINE = dict(cpu=str, features=dict[str, bool] | None, threads=Size)
"""A machine's CPU, its features (null in old records), and the threads that torch used."""
MADE = dict(command=str, date=str, commit=str | None, versions=TEXTS)
FURTHER = dict(rules=list[str], machine=dict)
"""What an entry may have besides: hashes of rules, and a machine that is not the block's."""
NULLABLE = {"group_size", "isa", "mb_step", "mhz", "width", "windows"}
"""Keys of a run that may be null: no groups, all instructions, a batch without room in memory, a
unit that nothing could route, full width, no window."""


def require_record(name: str, record: dict) -> None:
    """Refuse an invalid record, naming the place: `machines[0].runs[3].loss=None: ...`."""
    require_object("record", record, RECORD)
    require(record["name"] == name, "name", record["name"], f"{name!r}")
    require(bool(record["machines"]), "machines", [], "at least one")
    for i, block in enumerate(record["machines"]):
        _require_block(f"machines[{i}]", block)


def _require_block(place: str, block: dict) -> None:
    require_object(place, block, BLOCK)
    require_object(f"{place}.machine", block["machine"], MACHINE)
    provenance, runs = block["provenance"], block["runs"]
    for i, entry in enumerate(provenance):
        further = {key: kind for key, kind in FURTHER.items() if key in entry}
        require_object(f"{place}.provenance[{i}]", entry, MADE | further)
        if "machine" in entry:
            require_object(f"{place}.provenance[{i}].machine", entry["machine"], MACHINE)
    is_whole = bool(runs) and bool(provenance)
    require(is_whole, f"{place}.runs", runs, "at least one, and what made it")
    for i, run in enumerate(runs):
        require_run(f"{place}.runs[{i}]", run)
        require_int(f"{place}.runs[{i}].made", run.get("made"), 0, len(provenance) - 1)
    _require_alike(f"{place}.runs", runs)


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
