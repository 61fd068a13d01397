"""Every notebook once more, in Chinese, with other parameters and its exercises solved.

The executed notebooks lie under runs/probes, untracked, to be looked at.
"""

import pytest

from efflab.publishing.catalog import ROOT, catalog, sources
from efflab.publishing.order import longest_first
from efflab.publishing.run import execute_with


@pytest.mark.parametrize("number", longest_first("zh"))
def test_other_parameters_and_solutions(number):
    path = sources()[number]
    given = {"language": "zh", **catalog()[number]["probe"]}
    target = ROOT / "runs" / "probes" / f"{path.stem}.ipynb"
    execute_with(path, given, target, solved=True, strict=True, complete=True)
