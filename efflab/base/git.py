"""What git says of a folder."""

import subprocess
from pathlib import Path
from typing import Any


def ask_git(folder: Path, *words: str) -> str | None:
    """The output of `git WORDS` in a folder; None if git fails or is not installed."""
    command = ["git", "-C", str(folder), *words]
    options: Any = dict(capture_output=True, check=True, timeout=20, encoding="utf-8")
    try:
        return subprocess.run(command, **options).stdout
    except (OSError, subprocess.SubprocessError):
        return None
