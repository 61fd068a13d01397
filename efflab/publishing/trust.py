"""Signs the shipped notebooks as trusted: JupyterLab drops an untrusted one's explorers on reload.

`efflab lab` starts this together with JupyterLab, as `python -m efflab.publishing.trust`.
"""

import subprocess
from pathlib import Path

from efflab.base.json_files import read_json
from efflab.publishing.catalog import ROOT


def unchanged_notebooks(root: Path = ROOT) -> list[Path]:
    """The notebooks that git tracks and that are unchanged; [] without git."""
    tracked = _git(root, "ls-files", "-z", "--", "notebooks/*.ipynb")
    changed = set(_git(root, "diff", "--name-only", "-z", "HEAD", "--", "notebooks"))
    return [root / name for name in tracked if name not in changed]


def _git(root: Path, *arguments: str) -> list[str]:
    """The NUL-separated names in git's output; [] if it fails."""
    try:
        output = subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return output.stdout.decode().rstrip("\0").split("\0") if output.stdout else []


def trust(paths: list[Path]) -> None:
    """Sign notebooks with the reader's own key, as `jupyter trust` does, but without validation."""
    import nbformat
    from nbformat.sign import NotebookNotary

    notary = NotebookNotary()
    for path in paths:
        notary.sign(nbformat.from_dict(read_json(path)))


if __name__ == "__main__":
    trust(unchanged_notebooks())
