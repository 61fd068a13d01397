"""Experiments that take longer than a notebook; every run is recorded with its provenance.

An experiment is a module here with a `NAME` and a `run(*, fresh)`; its file name is its name.
"""

from importlib import import_module
from pkgutil import iter_modules

from efflab.errors import require_one_of


def experiments() -> list[str]:
    """The names of all experiments."""
    modules = (import_module(f"{__name__}.{info.name}") for info in iter_modules(__path__))
    return sorted(m.NAME for m in modules if hasattr(m, "NAME") and hasattr(m, "run"))


def run_experiment(name: str, *, fresh: bool = False) -> dict:
    """Run and record what is not yet in data/experiments/NAME.json, or with `fresh` all of it."""
    require_one_of("name", name, experiments())
    return import_module(f"{__name__}.{name.replace('-', '_')}").run(fresh=fresh)
