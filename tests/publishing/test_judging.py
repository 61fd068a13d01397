"""Which rule judges a claim, and what it says of figures that are not its own."""

import pytest
from ledgers import BIG, LESS, SMALL

from efflab.publishing import judging
from efflab.publishing.ledger import verdicts as stored
from efflab_rooms.quantization import verdicts


def test_a_claim_is_judged_in_its_notebooks_room(root):
    assert judging.room("int8-size") == "quantization"
    assert judging.room("big", root) == "toy"
    assert judging.room("later", root) is None


def test_a_claims_rule_is_the_rooms_function_of_its_name():
    assert judging.rule("int8-size") is verdicts.int8_size


def test_a_claim_of_no_notebook_has_no_rule():
    with pytest.raises(ValueError, match="claim='later': expected one whose notebook is written"):
        judging.rule("later")


def test_the_chinese_is_that_of_the_room():
    texts = judging.chinese_texts("int8-size")
    assert texts
    assert all(isinstance(text, str) for text in texts.values())
    assert stored()["int8-size"]["rule"] in texts


def test_figures_are_judged_anew(root):
    assert judging.judge("big", BIG["figures"], root).word == "holds if"
    assert judging.judge("big", LESS["figures"], root).word == "does not hold"


def test_a_strangers_figures_are_refused_with_the_start_of_the_reason(root, monkeypatch):
    with pytest.raises(ValueError, match=r"big: its figures are not .* \(KeyError: 'removed'\)"):
        judging.judge("big", SMALL["figures"], root)

    def fails(figures):
        raise RuntimeError("x" * 500)

    monkeypatch.setattr(judging, "rule", lambda claim, root: fails)
    with pytest.raises(ValueError, match=r"\(RuntimeError: x{186}\)$"):
        judging.judge("big", BIG["figures"], root)


def test_what_turns_an_outcome_is_tried_also_where_a_rule_cannot_judge(root, monkeypatch):
    assert judging.turning("big", BIG, LESS, root) == ["removed"]

    def fails(figures):
        raise RuntimeError

    monkeypatch.setattr(judging, "rule", lambda claim, root: fails)
    assert judging.turning("big", BIG, LESS, root) == ["removed"]  # the first, for want of any
