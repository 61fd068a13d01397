"""Runs a notebook over a grid of parameters: in this process, in several, or on a Dask cluster.

Every run is executed in a scratch folder and comes back whole, as the text of the notebook, which
the process that asked for it stores. So a worker, here or elsewhere, writes nowhere else, and a
kill loses only the runs that were under way.
"""

import multiprocessing
import signal
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from efflab.base.files import write_atomically
from efflab.errors import require, require_int
from efflab.experiments.cluster import connect
from efflab.experiments.provenance import machine, machine_name
from efflab.publishing.catalog import NOTEBOOKS, find
from efflab.publishing.execute import CellFailed
from efflab.publishing.parameters import check_values_for, offer
from efflab.publishing.run import execute_with, fingerprint, is_done, run_folder, writable
from efflab.publishing.source import read_source, translate

Task = tuple[str, dict, Path | None]
"""A notebook, its parameters and its folder: None for that of whoever runs it."""


@dataclass(frozen=True)
class Point:
    """One run of a grid: its parameters, and the notebook's file or why there is none."""

    given: dict
    path: Path | None
    failure: str = ""


def run_grid(
    name: str, grid: list[dict], *, folder: Path, fresh=False, jobs=1, dask=None, say=print
) -> list[Point]:
    """Run notebook `name` with every set of parameters in `grid`; finished runs are reused.

    `jobs`: local processes; `dask`: a scheduler's address instead. A run that fails is a point with
    its reason, and the others go on. Every value is checked before the first kernel starts.
    """
    path = find(name, folder)
    source = read_source(path)
    require(any(grid), "-p", "", f"something to vary: {', '.join(offer(path, source))}")
    grid = [check_values_for(path, source, given) for given in grid]
    require_int("--jobs", jobs)
    points = {}
    for i, given in enumerate(grid):
        if not fresh and (earlier := is_done(name, given, folder, say)):
            points[i] = Point(given, earlier)
    where = own_folder(folder)
    tasks = {i: (name, given, where) for i, given in enumerate(grid) if i not in points}
    if points:
        say(f"{len(points)} of {len(grid)} done before, as nothing that they depend on has changed")
    same = partial(identity, (name,), where)
    for i, *end in run_tasks(tasks, same, jobs=jobs, dask=dask, n_done=len(points), say=say):
        points[i] = Point(grid[i], *end)
    return [points[i] for i in range(len(grid))]


def own_folder(folder: Path) -> Path | None:
    """None for the notebooks of this repository, which may lie elsewhere on another machine."""
    return None if folder == NOTEBOOKS else folder


def run_tasks(
    tasks: Mapping[Any, Task], same: Callable[[], str], *, jobs=1, dask=None, n_done=0, say=print
) -> Iterator[tuple[Any, Path | None, str]]:
    """Run the tasks and store them: each one's key and file, or why there is none, as they end.

    `same`: what has to be equal on a cluster's workers. One line shows the progress, with
    `n_done` tasks done before; a failure has a line of its own.
    """
    from tqdm import tqdm

    if not tasks:
        return
    places = {
        key: writable(run_folder(find(name, folder or NOTEBOOKS), given), say)
        for key, (name, given, folder) in tasks.items()
    }
    failed, total = 0, n_done + len(tasks)
    with (
        _start(tasks, same, jobs, dask) as (width, results),
        tqdm(total=total, initial=n_done, unit="run") as bar,
    ):
        bar.set_postfix(running=min(width, len(tasks)), failed=failed)
        for key, result in results:
            if failure := result.get("failure", ""):
                bar.clear()
                say(f"failed: {failure}")
            else:
                write_atomically(places[key], result["notebook"])
            failed += bool(failure)
            bar.set_postfix(running=min(width, total - bar.n - 1), failed=failed, refresh=False)
            bar.update()
            yield key, None if failure else places[key], failure


@contextmanager
def _start(tasks, same, jobs: int, dask: str | None) -> Iterator[tuple[int, Iterator]]:
    """How many tasks run at once, and each one's key and result as they end."""
    if dask is None:
        with closing(_run_here(jobs, tasks)) as results:
            yield jobs, results
        return
    with connect(dask, same) as (width, call), closing(call(run_in_scratch, tasks)) as ends:
        yield width, ((key, _result_of(future)) for key, future in ends)


def run_in_scratch(name: str, given: dict, folder: Path | None) -> dict:
    """One run: {"notebook": its text}, or {"failure": the reason in one line}."""
    with TemporaryDirectory(prefix="efflab-") as scratch:
        target = Path(scratch) / "run.ipynb"
        try:
            execute_with(find(name, folder or NOTEBOOKS), given, target, quiet=True)
        except CellFailed as error:
            lines = str(error).split("\n\nThe notebook so far")[0].strip().splitlines()
            return dict(failure=f"{lines[0].rstrip(':')}: {lines[-1].strip()}")
        except (ValueError, OSError, RuntimeError) as error:
            return dict(failure=f"{type(error).__name__}: {error}")
        return dict(notebook=target.read_text("utf-8"))


def _run_here(jobs: int, tasks: Mapping[Any, Task]) -> Generator[tuple[Any, dict]]:
    """Results in the order in which they end; with one job in this process, one after the other."""
    if jobs == 1 or len(tasks) < 2:
        yield from ((i, run_in_scratch(*task)) for i, task in tasks.items())
        return
    context = multiprocessing.get_context("spawn")
    ignore = partial(signal.signal, signal.SIGINT, signal.SIG_IGN)  # who asked ends them
    with ProcessPoolExecutor(min(jobs, len(tasks)), context, initializer=ignore) as pool:
        futures = {pool.submit(run_in_scratch, *task): i for i, task in tasks.items()}
        try:
            yield from ((futures[f], _result_of(f)) for f in as_completed(futures))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            _end_children()
            raise


def _result_of(future) -> dict:
    """A run's result; that its process ended is a failure, and the same command goes on."""
    error = future.exception()
    return future.result() if error is None else dict(failure=f"no result: {error}")


def _end_children() -> None:
    """End the workers and their kernels."""
    import psutil

    children = psutil.Process().children(recursive=True)
    for child in children:
        with suppress(psutil.Error):
            child.terminate()
    psutil.wait_procs(children, timeout=5)


# --- On a cluster ----------------------------------------------------------------------------


def identity(names: Iterable[str], folder: Path | None, with_machine: bool = False) -> str:
    """A hash of the notebooks and of all that they depend on, on the machine that computes it.

    `with_machine`: also the kind of machine.
    """
    paths = [find(name, folder or NOTEBOOKS) for name in names]
    marks = [fingerprint(translate(read_source(path), "en"), path, {}) for path in paths]
    return " ".join(marks) + (machine_name(machine()) if with_machine else "")


def run_ahead(names: list[str], folder: Path, dask: str, fresh: bool = False) -> dict[str, str]:
    """Run notebooks with their defaults on workers of this kind of machine: {name: failure}."""
    where = own_folder(folder)
    tasks = {n: (n, {}, where) for n in names if fresh or not is_done(n, {}, folder)}
    same = partial(identity, names, where, with_machine=True)
    return {name: failure for name, _, failure in run_tasks(tasks, same, dask=dask) if failure}
