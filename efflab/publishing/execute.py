"""Executes a notebook with papermill, for build, run, sweep and probe.

Imports little, so that the command line can use `CellFailed` without loading Jupyter.
"""

import re
import warnings
from pathlib import Path


class CellFailed(Exception):
    """A cell raised, timed out, or killed its kernel.

    The message has notebook, cell, source, traceback, and the path of the notebook so far.
    """


def execute(
    notebook, name: str, cwd: Path, part: Path, *, given=None, timeout=600, show=True, starts=2
):
    """Run `notebook` in a new kernel that starts in `cwd`, with a progress bar if `show`.

    `given` (the parameters that differ) are injected after the `parameters` cell. While it runs,
    and when a cell fails, `part` holds the notebook so far. Returns the executed copy, from whose
    cells `seconds` reads their times. `name` is used in the message of a `CellFailed`.
    `timeout`: seconds that a cell may take.

    Jupyter picks a kernel's ports before it starts, and another program may take one meanwhile; a
    kernel that died before its first cell is started again, `starts` times in all.
    """
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    part = part.resolve()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return papermill.execute_notebook(
                notebook,
                str(part),
                given or {},
                kernel_name="python3",
                # The kernel starts in `cwd`; papermill's own `cwd` would move this process, and
                # two threads that execute would leave it in one's folder.
                resources={"metadata": {"path": str(cwd)}},
                progress_bar={"desc": name} if show else False,
                execution_timeout=timeout,
                store_widget_state=False,
                record_timing=False,
                coalesce_streams=True,
                extra_arguments=["--log-level=40"],
            )
    except PapermillExecutionError as error:
        trace = plain("\n".join(error.traceback))
        raise report_failure(name, error.cell_index, error.source, trace, part) from None
    except (CellTimeoutError, DeadKernelError) as error:
        died = isinstance(error, DeadKernelError)
        reason = "The kernel died." if died else f"It ran over {timeout} s."
        raise report_failure(name, *_last_started(part), reason, part) from None
    except BaseException as error:  # Ctrl-C, a full disk: no message would mention `part`
        part.unlink(missing_ok=True)
        if starts < 2 or "Kernel died before" not in str(error):
            raise
        options = dict(given=given, timeout=timeout, show=show, starts=starts - 1)
        return execute(notebook, name, cwd, part, **options)


def report_failure(name: str, index: int, source: str, trace: str, part: Path) -> CellFailed:
    """The `CellFailed` of a cell, with its source and traceback."""
    return CellFailed(
        f"{name}, cell {index} failed:\n\n{source}\n\n{trace}\n\nThe notebook so far: {part}"
    )


def seconds(cell) -> float:
    """Seconds that a cell took, from papermill's metadata; 0 for text."""
    duration = cell.metadata.get("papermill", {}).get("duration")
    return duration if duration and cell.cell_type == "code" else 0.0


def plain(text: str) -> str:
    """The text without terminal colour codes."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def title_of(cell) -> str:
    """A cell's first line of code, as its name."""
    lines = [line for line in cell.source.splitlines() if line and not line.startswith("#")]
    return (lines or [cell.source])[0][:60]


def _last_started(part: Path) -> tuple[int, str]:
    """Index and source of the cell that was running when papermill last wrote."""
    import nbformat

    cells = nbformat.read(part, as_version=4).cells
    started = [i for i, c in enumerate(cells) if c.metadata.papermill.get("start_time")]
    return started[-1], cells[started[-1]].source
