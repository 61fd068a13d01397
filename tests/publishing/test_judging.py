"""Which rule judges a claim, and what it says of figures that are not its own."""

import pytest
from ledgers import BIG, LESS, SMALL

from efflab.base.stored import figures_of
from efflab.publishing import judging
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
    assert "smaller" in " ".join(texts)


def test_figures_are_judged_anew(root):
    assert judging.judge("big", figures_of(BIG).values(), root).outcome == "holds"
    assert judging.judge("big", figures_of(LESS).values(), root).outcome == "holds in part"


def test_a_strangers_figures_are_refused_with_the_start_of_the_reason(root, monkeypatch):
    strange = figures_of(SMALL).values()
    with pytest.raises(ValueError, match=r"big: its figures are not .* \(Refusal: evidence of big"):
        judging.judge("big", strange, root)

    def fails(figures):
        raise RuntimeError("x" * 500)

    monkeypatch.setattr(judging, "rule", lambda claim, root: fails)
    with pytest.raises(ValueError, match=r"\(RuntimeError: x{186}\)$"):
        judging.judge("big", figures_of(BIG).values(), root)
