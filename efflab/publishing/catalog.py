"""Which notebooks exist and where; imports little, so that `efflab list` is fast."""

from pathlib import Path

from efflab.base.places import ROOT
from efflab.base.toml_files import read_toml
from efflab.errors import require

NOTEBOOKS = ROOT / "notebooks"


def sources(folder: Path = NOTEBOOKS) -> dict[str, Path]:
    """Number -> source file, in order: {"00": .../00_start_here.py, ...}."""
    return {path.stem[:2]: path for path in sorted((folder / "src").glob("[0-9][0-9]_*.py"))}


def find(name: str, folder: Path = NOTEBOOKS) -> Path:
    """The source of notebook "03", "3" or "03_sparse_attention"; a `ValueError` lists the known."""
    known = sources(folder)
    for number, path in known.items():
        if name in (number, f"{int(number)}", path.stem, path.name, f"{path.stem}.ipynb"):
            return path
    require(False, "notebook", name, "one of " + ", ".join(p.stem for p in known.values()))


def catalog(folder: Path = NOTEBOOKS) -> dict[str, dict]:
    """notebooks/catalog.toml: {number: entry}, in order."""
    return dict(sorted(read_toml(folder / "catalog.toml").items()))


def built_path(source: Path, language: str) -> Path:
    """Path of a source's built notebook: in the folder above `src`, the Chinese one in `zh`."""
    folder = source.parent.parent / ("zh" if language == "zh" else "")
    return folder / f"{source.stem}.ipynb"
