"""Starts JupyterLab on the notebooks, reachable from this machine only."""

import os
import subprocess
import sys
from pathlib import Path

from efflab.base.places import ROOT
from efflab.errors import require
from efflab.publishing.catalog import built_path, find

SETTINGS = Path(__file__).parent / "jupyter"
"""Settings that JupyterLab reads besides the reader's own, which take precedence."""


def start(port: int | None, language: str, *, browser: bool = True) -> None:
    """Become JupyterLab at notebook 00, behind a token in the address.

    The printed address leads to notebook 00, for a reader who opens it by hand. JupyterLab neither
    looks for news or updates nor asks whether it should.
    """
    require(port is None or 1 <= port <= 65535, "--port", port, "a number from 1 to 65535")
    first = built_path(find("00"), language).relative_to(ROOT).as_posix()
    command = [sys.executable, "-m", "jupyterlab", "--ip=127.0.0.1", f"--notebook-dir={ROOT}"]
    command += [f"--LabApp.default_url=/lab/tree/{first}"]
    command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    if port is not None:
        command.append(f"--port={port}")
    if not browser:
        command.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # as root it would refuse to start
    paths = os.pathsep.join(filter(None, [str(SETTINGS), os.environ.get("JUPYTER_CONFIG_PATH")]))
    trust = [sys.executable, "-m", "efflab.publishing.trust"]
    subprocess.Popen(trust, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.execve(sys.executable, command, {**os.environ, "JUPYTER_CONFIG_PATH": paths})
