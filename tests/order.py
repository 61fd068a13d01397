"""The order of the notebooks' tests: the longest first, so that no worker is idle at the end.

`python tests/order.py` prints the English notebooks in that order, for pytest.
"""

import os
from pathlib import Path

from efflab.publishing.catalog import NOTEBOOKS, built_path, sources
from efflab.publishing.usage import read_builds


def longest_first(language: str = "en", folder: Path = NOTEBOOKS) -> list[str]:
    """The notebooks' numbers, by descending seconds in data/builds.json; ties by number."""
    builds = read_builds(folder.parent / "data" / "builds.json")

    def seconds(number: str) -> float:
        return builds.get(f"{number} {language}", {}).get("seconds", 0)

    return sorted(sources(folder), key=lambda number: (-seconds(number), number))


if __name__ == "__main__":
    known = sources()
    print(*(os.path.relpath(built_path(known[number], "en")) for number in longest_first()))
