"""The project's own Python files, for tests that read code."""

from pathlib import Path

from efflab.publishing.catalog import ROOT

FOLDERS = (ROOT / "efflab", ROOT / "notebooks" / "efflab_rooms")


def code_files() -> dict[str, Path]:
    """By name from the package on, or from the rooms' folder on: "cost.py", "gptq/verdicts.py"."""
    return {
        path.relative_to(folder).as_posix(): path
        for folder in FOLDERS
        for path in sorted(folder.rglob("*.py"))
    }
