"""Runs a notebook over a grid of parameters: in this process, in several, or on a Dask cluster.

Every run is executed in a scratch folder and comes back whole, as the text of the notebook; who
asked stores it. So a worker, here or elsewhere, writes nowhere else, and a kill loses only the runs
that were under way.
"""

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from efflab.base.files import write_atomically
from efflab.errors import require, require_int
from efflab.publishing.catalog import find
from efflab.publishing.execute import CellFailed
from efflab.publishing.parameters import check_values_for, offer
from efflab.publishing.run import execute_with, fingerprint, is_done, run_folder, writable
from efflab.publishing.source import read_source, translate

DASK_SECONDS = 10
"""How long to look for a scheduler."""
Task = tuple[str, dict, Path]


@dataclass(frozen=True)
class Point:
    """One run of a grid: its parameters, and the notebook's file or why there is none."""

    given: dict
    path: Path | None
    failure: str = ""


def run_grid(
    name: str,
    grid: list[dict],
    *,
    folder: Path,
    fresh: bool = False,
    jobs: int = 1,
    dask: str | None = None,
    say: Callable[[str], None] = print,
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
    earlier = {} if fresh else {i: is_done(name, g, folder, say) for i, g in enumerate(grid)}
    points = {i: Point(grid[i], done) for i, done in earlier.items() if done}
    tasks = {i: (name, given, folder) for i, given in enumerate(grid) if i not in points}
    places = {i: writable(run_folder(path, grid[i]), say) for i in tasks}
    results = _run_on(dask, tasks) if dask else _run_here(jobs, tasks)
    if points:
        say(f"{len(points)} of {len(grid)} done before, as nothing that they depend on has changed")
    for i, result in _progress(results, len(grid), len(points), say):
        if "notebook" in result:
            write_atomically(places[i], result["notebook"])
        failure = result.get("failure", "")
        points[i] = Point(grid[i], None if failure else places[i], failure)
    return [points[i] for i in range(len(grid))]


def run_in_scratch(name: str, given: dict, folder: Path) -> dict:
    """One run: {"notebook": its text}, or {"failure": the reason in one line}."""
    with TemporaryDirectory(prefix="efflab-") as scratch:
        target = Path(scratch) / "run.ipynb"
        try:
            execute_with(find(name, folder), given, target, quiet=True)
        except CellFailed as error:
            lines = str(error).split("\n\nThe notebook so far")[0].strip().splitlines()
            return dict(failure=f"{lines[0].rstrip(':')}: {lines[-1].strip()}")
        except (ValueError, OSError, RuntimeError) as error:
            return dict(failure=f"{type(error).__name__}: {error}")
        return dict(notebook=target.read_text("utf-8"))


def _progress(results: Iterable, total: int, n_done: int, say) -> Iterator[tuple[int, dict]]:
    """The results as they come, with one line of progress and one for each failure."""
    from tqdm import tqdm

    failed = 0
    with tqdm(total=total, initial=n_done, unit="run", disable=n_done == total) as bar:
        for i, result in results:
            if "failure" in result:
                failed += 1
                say(f"failed: {result['failure']}")
            bar.set_postfix(failed=failed)
            bar.update()
            yield i, result


# --- Here ------------------------------------------------------------------------------------


def _run_here(jobs: int, tasks: dict[int, Task]) -> Iterator[tuple[int, dict]]:
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


def _result_of(future: Future) -> dict:
    """A run's result; a worker that was killed is a failure, and the same command goes on."""
    error = future.exception()
    return future.result() if error is None else dict(failure=f"its process ended: {error}")


def _end_children() -> None:
    """End the workers and their kernels."""
    import psutil

    children = psutil.Process().children(recursive=True)
    for child in children:
        with suppress(psutil.Error):
            child.terminate()
    psutil.wait_procs(children, timeout=5)


# --- On a cluster ----------------------------------------------------------------------------


def _run_on(address: str, tasks: dict[int, Task]) -> Iterator[tuple[int, dict]]:
    """Results of a Dask cluster's workers, which need the same efflab and notebook.

    A run whose worker dies is given to another one by the scheduler.
    """
    from distributed import Client
    from distributed import as_completed as completed

    if not tasks:
        return
    name, _, folder = next(iter(tasks.values()))
    try:
        client = Client(address, timeout=DASK_SECONDS)
    except (OSError, ValueError) as error:
        raise ValueError(f"--dask={address!r}: expected a scheduler's address ({error})") from None
    with client:
        _require_same(client, name, folder)
        submit = partial(client.submit, run_in_scratch, pure=False)
        futures = {submit(*task): i for i, task in tasks.items()}
        try:
            for future in completed(list(futures)):
                error = future.exception()
                failure = dict(failure=f"its workers ended: {error}")
                yield futures[future], future.result() if error is None else failure
        except BaseException:
            client.cancel(list(futures), force=True)
            raise


def identity(name: str, folder: Path) -> str:
    """A hash of the notebook and of all that it depends on, on the machine that computes it."""
    path = find(name, folder)
    return fingerprint(translate(read_source(path), "en"), path, {})


def _require_same(client, name: str, folder: Path) -> None:
    """Refuse workers whose code, data or libraries differ from those here, by their address."""
    answers = client.run(identity, name, folder)
    require(bool(answers), "--dask", "no workers", "a scheduler with at least one worker")
    own = identity(name, folder)
    others = sorted(worker for worker, answer in answers.items() if answer != own)
    allowed = "the same efflab, notebook, data and libraries as here"
    require(not others, "worker", ", ".join(others), allowed)
