"""Where an experiment's numbers are kept: data/experiments/NAME.json, with their provenance."""

import json
import platform
from datetime import date
from importlib.metadata import version
from pathlib import Path

from efflab.data import DATA_DIR
from efflab.errors import require_one_of

EXPERIMENTS = DATA_DIR / "experiments"


def provenance(command: str, seeds) -> dict:
    """What made a number: command, date, machine, versions, seeds."""
    import torch

    from efflab.bench import cpu_name

    return dict(
        command=command,
        date=date.today().isoformat(),
        machine=f"{cpu_name()}, {torch.get_num_threads()} thread(s)",
        versions=dict(python=platform.python_version(), torch=version("torch")),
        seeds=list(seeds),
    )


def record(name: str, *, settings: dict, seeds, folder: Path = EXPERIMENTS, **results) -> dict:
    """Write `results` with their provenance; returns what was written."""
    made = provenance(f"efflab experiment {name}", seeds)
    written = dict(name=name, **made, settings=settings, **results)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    return written


def recorded(name: str, folder: Path = EXPERIMENTS) -> dict:
    """What an experiment wrote; an unknown name is a `ValueError` that lists the known ones."""
    require_one_of("name", name, sorted(path.stem for path in folder.glob("*.json")))
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def kept_runs(name: str, settings: dict, folder: Path = EXPERIMENTS) -> list[dict]:
    """The runs that an experiment killed earlier left under these `settings`; none otherwise."""
    kept = recorded(name, folder) if (folder / f"{name}.json").exists() else {}
    return kept["runs"] if settings.items() <= kept.get("settings", {}).items() else []


def same_python(experiment: dict) -> bool:
    """Whether it was recorded with this minor version of Python, whose library is the corpus."""
    versions = experiment["versions"]["python"], platform.python_version()
    return len({v.rsplit(".", 1)[0] for v in versions}) == 1
