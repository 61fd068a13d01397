"""Signs the shipped notebooks as trusted: JupyterLab drops an untrusted one's explorers on reload.

`efflab lab` starts this together with JupyterLab, as `python -m efflab.publishing.trust`.
"""

from pathlib import Path

from efflab.base.git import ask_git
from efflab.base.json_files import read_json
from efflab.publishing.catalog import ROOT


def unchanged_notebooks(root: Path = ROOT) -> list[Path]:
    """The notebooks that git tracks and that are unchanged; [] where git cannot tell."""
    tracked = ask_git(root, "ls-files", "-z", "--", "notebooks/*.ipynb")
    changed = ask_git(root, "diff", "--name-only", "--relative", "-z", "HEAD", "--", "notebooks")
    if tracked is None or changed is None:
        return []
    names = [name for name in tracked.split("\0") if name not in changed.split("\0")]
    return [root / name for name in names]


def trust(paths: list[Path]) -> None:
    """Sign notebooks with the reader's own key, as `jupyter trust` does, but without validation."""
    import nbformat
    from nbformat.sign import NotebookNotary

    notary = NotebookNotary()
    for path in paths:
        notary.sign(nbformat.from_dict(read_json(path)))


if __name__ == "__main__":
    trust(unchanged_notebooks())
