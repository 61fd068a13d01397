"""Where an experiment's numbers are kept: data/experiments/NAME.json, with their provenance."""

import json
import platform
from datetime import date
from importlib.metadata import version
from pathlib import Path

from efflab.data import DATA_DIR
from efflab.errors import require_one_of

EXPERIMENTS = DATA_DIR / "experiments"


def record(name: str, *, settings: dict, seeds, folder: Path = EXPERIMENTS, **results) -> dict:
    """Write `results` with command, machine, versions, seeds and date; returns what was written."""
    import torch

    from efflab.bench import cpu_name

    written = dict(
        name=name,
        command=f"efflab experiment {name}",
        date=date.today().isoformat(),
        machine=f"{cpu_name()}, {torch.get_num_threads()} thread(s)",
        versions=dict(python=platform.python_version(), torch=version("torch")),
        seeds=list(seeds),
        settings=settings,
        **results,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    return written


def recorded(name: str, folder: Path = EXPERIMENTS) -> dict:
    """What an experiment wrote; an unknown name is a `ValueError` that lists the known ones."""
    require_one_of("name", name, sorted(path.stem for path in folder.glob("*.json")))
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
