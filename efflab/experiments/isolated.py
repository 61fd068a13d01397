"""Runs a measurement in a separate process, with environment variables that libraries read on load.

python -m efflab.experiments.isolated package.module:function RESULT.json < ARGUMENTS.json
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from efflab.base.files import write_atomically
from efflab.base.json_files import parse_json
from efflab.base.privacy import opt_out


def run_isolated(
    function: str, arguments: dict, environment: Mapping[str, str] | None = None, timeout=600
) -> dict:
    """The JSON result of `function` ("package.module:name") with JSON `arguments` in a new Python.

    `environment` is added to this process's. A process that fails or takes longer than `timeout`
    seconds is a `RuntimeError` with the end of its output.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        try:
            process = subprocess.run(
                [sys.executable, "-m", __name__, function, str(result)],
                input=json.dumps(arguments),
                env=os.environ | dict(environment or {}),
                capture_output=True,
                text=True,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"{function} took longer than {timeout} s") from error
        if process.returncode or not result.exists():
            output = (process.stdout + process.stderr)[-2000:]
            raise RuntimeError(f"{function} ended with status {process.returncode}:\n{output}")
        return parse_json(result.read_bytes(), object)


def main(function: str, result: str) -> None:
    """Entry point of the new process."""
    opt_out()
    module, name = function.split(":")
    answer = getattr(import_module(module), name)(**parse_json(sys.stdin.read()))
    write_atomically(Path(result), json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
