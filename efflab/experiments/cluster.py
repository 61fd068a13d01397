"""Work handed to a Dask cluster whose workers have the same code, libraries and data as here."""

import hashlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from time import perf_counter

import efflab
from efflab.base.places import DATA_DIR
from efflab.errors import require
from efflab.experiments.provenance import libraries, machine, machine_name

SECONDS = 10
"""How long to look for a scheduler."""
TRIM, NANNYS = "MALLOC_TRIM_THRESHOLD_", "65536"
"""What Dask's nanny sets for its worker."""
ALLOWED = "the same code, data and libraries as here, and where times are kept the same machine"


def _call_alike(identity: Callable[[], str], own: str, function: Callable, *task):
    """`function(*task)` on a worker, which is checked here too: it may have joined late."""
    require(identity() == own, "worker", machine_name(machine()), ALLOWED)
    if os.environ.get(TRIM) == NANNYS:
        # a notebook's kernel, begun from here, would give its memory back after every step, which
        # makes training a quarter slower than on a machine without Dask
        del os.environ[TRIM]
    return function(*task)


@contextmanager
def connect(address: str, identity: Callable[[], str]) -> Iterator[tuple[int, Callable]]:
    """The cluster of the scheduler at `address`: how many calls run at once, and a function.

    That function takes another one and {key: its arguments}, and yields each key with its future
    as the calls end. If a worker dies, another one takes over its call. A worker whose `identity()`
    differs from the one here is refused by its address.
    """
    from distributed import Client

    try:
        client = Client(address, timeout=SECONDS)
    except (OSError, ValueError) as error:
        raise ValueError(f"--dask={address!r}: expected a scheduler's address ({error})") from None
    with client:
        answers, own = client.run(identity, on_error="return"), identity()
        require(bool(answers), "--dask", "no workers", "a scheduler with at least one worker")
        others = sorted(worker for worker, answer in answers.items() if answer != own)
        require(not others, "worker", ", ".join(others), ALLOWED)
        yield sum(client.nthreads().values()), partial(_call_all, client, identity, own)


def _call_all(client, identity, own, function: Callable, tasks: Mapping) -> Generator:
    from distributed import as_completed

    submit = partial(client.submit, _call_alike, identity, own, function, pure=False)
    futures = {submit(*task): key for key, task in tasks.items()}
    try:
        yield from ((futures[future], future) for future in as_completed(list(futures)))
    except BaseException:
        client.cancel(list(futures), force=True)
        raise


# --- An experiment's runs --------------------------------------------------------------------

scheduler: str | None = None
"""The address of the scheduler to whose workers `call_cases` hands its calls; None: here."""


def package_identity() -> str:
    """A hash of the package, its data, the libraries and the kind of machine, where called."""
    parts = libraries() + machine_name(machine()) + _contents()
    return hashlib.sha256(parts.encode()).hexdigest()


@cache
def _contents() -> str:
    """A hash of the package's code, the shipped model and the published rows, once a process."""
    paths = [*Path(efflab.__file__).parent.rglob("*.py")]
    paths += [p for folder in ("stdlib-gpt", "published") for p in (DATA_DIR / folder).glob("*")]
    h = hashlib.sha256()
    for path in sorted(path for path in paths if not path.name.startswith(("training", "."))):
        h.update(path.name.encode() + path.read_bytes())
    return h.hexdigest()


def call_cases(function: Callable, cases: Iterable[dict]) -> Iterator[tuple[dict, dict, float]]:
    """Each case, `function(**case)` and its seconds: here, in order; or as they end elsewhere."""
    if scheduler is None:
        yield from ((case, *_timed(function, case)) for case in cases)
        return
    tasks = {i: (function, case) for i, case in enumerate(cases)}
    with connect(scheduler, package_identity) as (_, call):
        for i, future in call(_timed, tasks):
            yield tasks[i][1], *future.result()


def _timed(function: Callable, case: dict) -> tuple[dict, float]:
    start = perf_counter()
    return function(**case), perf_counter() - start
