"""The tables of `data/published`, which papers and datasheets printed. No numpy here."""

import csv
from contextlib import suppress

from efflab.arguments import check_module
from efflab.base.places import DATA_DIR
from efflab.errors import require_one_of


def read_published(name: str, folder: str = "published") -> list[dict]:
    """Rows of data/`folder`/`name`.csv: whole numbers as int, others as float, nothing as None.

    data/README.md says which paper and table each file is from; `folder` "predicted" has what was
    computed before it was compared.
    """
    require_one_of("folder", folder, ("published", "predicted"))
    tables = DATA_DIR / folder
    require_one_of("name", name, sorted(path.stem for path in tables.glob("*.csv")))
    with (tables / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return [{k: _value(v) for k, v in row.items()} for row in csv.DictReader(file)]


def _value(text: str) -> int | float | str | None:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text or None


check_module(__name__)
