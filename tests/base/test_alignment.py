"""Columns of text: what stands under what, in English and in Chinese."""

import pytest

from efflab.base.alignment import align, display_width


def test_cells_stand_under_their_headers():
    rows = [["what", "MB"], ["来源", "13.5"], ["a", "7"]]
    assert align(rows, right=[False, True]) == ["what    MB", "来源  13.5", "a        7"]
    assert align(rows) == ["what  MB", "来源  13.5", "a     7"]
    assert display_width("来源 a") == 6


@pytest.mark.parametrize("rows", [[], [["a", "b"], ["c"]]])
def test_rows_that_are_no_table_are_refused(rows):
    with pytest.raises(ValueError, match=r"rows=.*: expected at least one row, all of one length"):
        align(rows)
