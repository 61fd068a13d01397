"""Every notebook once more, in Chinese, with other parameters and its exercises solved.

The executed notebooks lie under runs/probes, untracked, to be looked at.
"""

import pytest
from order import longest_first
from solving import execute_solved

from efflab.publishing.catalog import ROOT, catalog, sources


@pytest.mark.parametrize("number", longest_first("zh"))
def test_other_parameters_and_solutions(number):
    path = sources()[number]
    given = {"language": "zh", **catalog()[number]["probe"]}
    target = ROOT / "runs" / "probes" / f"{path.stem}.ipynb"
    execute_solved(path, given, target)
