"""Where the repository's files lie: around the package in a checkout, inside it in a wheel.

A checkout has all of them; a wheel has `data/` and the catalogue of the notebooks, which
`build_wheel.py` puts into it.
"""

from pathlib import Path

from efflab.errors import require

AROUND = Path(__file__).resolve().parents[2]
COPY = "repository"
"""The folder of the package that only a wheel has."""


def is_checkout() -> bool:
    """Whether the package is in its repository, also by an editable install."""
    return (AROUND / "notebooks" / "catalog.toml").is_file()


def require_checkout(command: str) -> None:
    """Raise a `ValueError` in an installed wheel, which lacks the files that `command` needs."""
    allowed = "one of doctor, list, card and advise; the others need a clone of the repository"
    require(is_checkout(), "command", command, allowed)


def root() -> Path:
    """The folder that holds `data` and `notebooks`."""
    if is_checkout():
        return AROUND
    from importlib.resources import files  # 15 ms that no checkout needs

    return Path(str(files("efflab") / COPY))


ROOT = root()
DATA_DIR = ROOT / "data"
