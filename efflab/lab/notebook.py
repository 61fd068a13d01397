"""The current notebook: what it passes to lab, which imports no notebook."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from efflab.base.busy import others
from efflab.base.limits import entry_of, require_within
from efflab.base.privacy import opt_out
from efflab.base.toml_files import read_toml
from efflab.errors import require
from efflab.lab import text


@dataclass
class Notebook:
    """Its name ("03_sparse_attention"; "" if there is none) and its exercises by name.

    `tries`: {exercise: different wrong results so far}, for `check`; `withheld`: key numbers that
    would give away a prediction, left out of figures' texts until the answer is revealed.
    """

    name: str = ""
    exercises: Mapping = field(default_factory=dict)
    tries: dict[str, list] = field(default_factory=dict)
    withheld: set[str] = field(default_factory=set)

    @property
    def number(self) -> str:
        """Its number, "03"."""
        return self.name[:2]


current = Notebook()


def use_notebook(name: str, exercises: Mapping, texts: Path | Mapping[str, str]) -> None:
    """Set the current notebook: `use_notebook("03_sparse_attention", EXERCISES, TEXTS)`.

    `exercises`: {"03-1": Exercise}, for `check`, which get their hints from the catalog; `texts`:
    its Chinese texts, a `zh.toml` or {English: Chinese}. An invalid name, an exercise of another
    notebook, or a parameter of the running notebook beyond its limits in the catalog is a
    `ValueError`.
    """
    require(bool(re.fullmatch(r"\d\d_\w+", name)), "name", name, 'such as "03_sparse_attention"')
    for exercise in exercises:
        require(exercise.startswith(f"{name[:2]}-"), "exercise", exercise, f'"{name[:2]}-1" and on')
    entry, kernel = entry_of(name), shell()
    require_within(kernel.user_ns if kernel else {}, entry.get("limits", {}))
    opt_out()  # for kernels not started by an efflab command
    hints = entry.get("hints", {})
    own = texts if isinstance(texts, Mapping) else read_toml(texts)
    text.use_texts({**own, **{hint["en"]: hint["zh"] for hint in hints.values()}})
    others.clear()
    current.name, current.exercises = name, with_hints(exercises, hints)
    current.tries.clear()
    current.withheld.clear()


def with_hints(exercises: Mapping, hints: Mapping[str, Mapping[str, str]]) -> dict:
    """The exercises with the catalog's hints, {"03-1": {en, zh}}, where these have one."""
    return {
        name: replace(exercise, hint=hints[name]["en"]) if name in hints else exercise
        for name, exercise in exercises.items()
    }


def shell():
    """IPython's shell in a notebook's kernel; None outside of one."""
    return sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
