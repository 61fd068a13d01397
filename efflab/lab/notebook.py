"""The notebook in use: what it hands over to lab, which imports no notebook."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from efflab.errors import require
from efflab.lab import text


@dataclass
class Notebook:
    """Its name ("03_sparse_attention"; empty where none is in use) and its exercises by name."""

    name: str = ""
    exercises: Mapping = field(default_factory=dict)

    @property
    def number(self) -> str:
        """Its number, "03"."""
        return self.name[:2]


current = Notebook()


def use_notebook(name: str, exercises: Mapping, texts: Path | Mapping[str, str]) -> None:
    """Say which notebook this is: `use_notebook("03_sparse_attention", EXERCISES, TEXTS)`.

    `exercises`: {"03-1": Exercise}, for `check`; `texts`: the Chinese of what it shows, a `zh.toml`
    or {English: Chinese}. A name that is no source's, or an exercise of another number, is a
    `ValueError`.
    """
    require(bool(re.fullmatch(r"\d\d_\w+", name)), "name", name, 'such as "03_sparse_attention"')
    for exercise in exercises:
        require(exercise.startswith(f"{name[:2]}-"), "exercise", exercise, f'"{name[:2]}-1" and on')
    text.use_texts(texts)
    current.name, current.exercises = name, exercises
