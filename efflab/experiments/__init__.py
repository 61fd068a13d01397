"""Experiments that take longer than a notebook; every run is recorded with its provenance.

An experiment is a module here with a `NAME` and a `run(*, fresh)`; its file name is its name.
"""

from importlib import import_module
from pkgutil import iter_modules

from efflab.errors import require, require_one_of
from efflab.experiments import cluster


def experiments() -> list[str]:
    """The names of all experiments."""
    modules = (import_module(f"{__name__}.{info.name}") for info in iter_modules(__path__))
    return sorted(m.NAME for m in modules if hasattr(m, "NAME") and hasattr(m, "run"))


TIMED = ("attention-bench", "budget-game", "case-study-latency", "gpu-bench", "int8-engines")
TIMED += ("language-engines", "decoder-steps", "decoder-cases", "int8-latency", "profile-first")
TIMED += ("light-first-times", "fp16-steps")
"""Experiments that time things: all of their runs belong on one machine."""


def run_experiment(name: str, *, fresh: bool = False, dask: str | None = None) -> dict:
    """Run and record what is not yet in data/experiments/NAME.json, or with `fresh` all of it.

    `dask`: the address of a scheduler to whose workers the runs are handed.
    """
    require_one_of("name", name, experiments())
    untimed = "with --dask an experiment that times nothing"
    require(dask is None or name not in TIMED, "name", name, untimed)
    cluster.scheduler = dask
    try:
        return import_module(f"{__name__}.{name.replace('-', '_')}").run(fresh=fresh)
    finally:
        cluster.scheduler = None
