"""Work handed to a Dask cluster whose workers have the same code, libraries and data as here."""

import hashlib
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import efflab
from efflab.errors import require
from efflab.experiments.provenance import libraries, machine, machine_name

SECONDS = 10
"""How long to look for a scheduler."""
ALLOWED = "the same code, data and libraries as here, and where times are kept the same machine"


@dataclass(frozen=True)
class Cluster:
    """An open Dask client, and what `identity()` has to give on each of its workers."""

    client: Any
    identity: Callable[[], str]
    own: str

    @property
    def n_threads(self) -> int:
        """How many calls run at once."""
        return sum(self.client.nthreads().values())

    def call(
        self, function: Callable, tasks: Mapping[Hashable, tuple]
    ) -> Generator[tuple[Any, Any]]:
        """Each task's key, and the ended future of `function(*task)`, in the order of their ends.

        A call whose worker dies is given to another one.
        """
        from distributed import as_completed

        submit = partial(self.client.submit, _call_alike, self.identity, self.own, function)
        futures = {submit(*task, pure=False): key for key, task in tasks.items()}
        try:
            for future in as_completed(list(futures)):
                yield futures[future], future
        except BaseException:
            self.client.cancel(list(futures), force=True)
            raise


def _call_alike(identity: Callable[[], str], own: str, function: Callable, *task):
    """`function(*task)` on a worker: also one that joined late has to be alike."""
    require(identity() == own, "worker", machine_name(machine()), ALLOWED)
    return function(*task)


@contextmanager
def connect(address: str, identity: Callable[[], str]) -> Iterator[Cluster]:
    """The cluster of the scheduler at `address`.

    Workers whose `identity()` is another one than here are refused by their addresses.
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
        yield Cluster(client, identity, own)


# --- An experiment's runs --------------------------------------------------------------------

_clusters: list[Cluster] = []


def package_identity() -> str:
    """A hash of the package, the libraries and the kind of machine, where it is called."""
    h = hashlib.sha256((libraries() + machine_name(machine())).encode())
    for path in sorted(Path(efflab.__file__).parent.rglob("*.py")):
        h.update(path.read_bytes())
    return h.hexdigest()


@contextmanager
def handing_out(address: str) -> Iterator[None]:
    """Inside the block `call_cases` hands its calls to the cluster at this address."""
    with connect(address, package_identity) as cluster:
        _clusters.append(cluster)
        try:
            yield
        finally:
            _clusters.remove(cluster)


def call_cases(function: Callable, cases: Iterable[dict]) -> Iterator[tuple[dict, dict, float]]:
    """Each case, `function(**case)` and its seconds: here, in order; or as they end elsewhere."""
    if not _clusters:
        yield from ((case, *_timed(function, case)) for case in cases)
        return
    tasks = {i: (function, case) for i, case in enumerate(cases)}
    for i, future in _clusters[-1].call(_timed, tasks):
        yield tasks[i][1], *future.result()


def _timed(function: Callable, case: dict) -> tuple[dict, float]:
    start = perf_counter()
    return function(**case), perf_counter() - start
