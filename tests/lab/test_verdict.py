"""A verdict's card: what is shown of a claim and its parts, and what is stored."""

import json

import pytest

from efflab import lab
from efflab.base.busy import others
from efflab.base.formats import STATEMENT
from efflab.estimate import Estimate
from efflab.lab import Evidence, judge, page, text, verdict
from efflab.lab.judge import read_rules
from efflab.lab.outcome import OUTCOMES, mark
from efflab.lab.verdict import MIME as VERDICT_MIME
from efflab.lab.verdict import load_statements

CLAIM = dict(
    section="1.1",
    claim=dict(en="Sharing is light.", zh="共享更轻。"),
    parts=[
        dict(id="size", en="It removes over half.", zh="移除过半。"),
        dict(id="time", en="It is faster.", zh="更快。"),
    ],
)
RULES = dict(
    size=dict(basis="formula", cases=["removed"], test="above", bar=50, kinds=["computed"]),
    time=dict(
        basis="sampled",
        cases=["ratio"],
        shows=["tokens"],
        test="below",
        bar=1,
        margin=0.05,
        kinds=["measured", "computed"],
        controls=[dict(case="control", test="above", bar=1)],
    ),
)
CHINESE = {
    "removed": "移除",
    "ratio": "比值",
    "tokens": "词元",
    "control": "对照",
    "of {n}": "共 {n}",
}


def evidence(high=0.9):
    ratio = Estimate((0.8 + high) / 2, 0.8, high)
    return [
        Evidence("removed", "removed", 71.2, "%"),
        Evidence.of("ratio", "ratio", ratio, "x"),
        Evidence.of("control", "control", Estimate(2, 1.5, 3), "x"),
        Evidence("tokens", "tokens", 64),
    ]


@pytest.fixture
def toy(monkeypatch):
    """One claim, "toy", with its parts and rules."""
    monkeypatch.setitem(verdict.__globals__, "load_claims", lambda: {"toy": CLAIM})
    monkeypatch.setitem(verdict.__globals__, "read_rules", lambda: {"toy": RULES})
    text.use_texts(CHINESE)
    return lambda high=0.9, **more: judge("toy", evidence(high), rules=RULES, **more)


def test_every_claim_is_complete_in_both_languages():
    claims = lab.load_claims()
    assert len(claims) == 32
    for name, claim in claims.items():
        assert set(claim) - {"short"} == {"section", "notebook", "claim", "parts"}, name
        assert claim["notebook"].isdigit()
        assert 1 <= len(claim["parts"]) <= 3, name
        for said in (claim["claim"], *claim["parts"]):
            assert text.has_chinese(said["zh"]), name
            assert not text.has_chinese(said["en"]), name


def test_notebooks_own_statements_are_complete_and_no_claims():
    own = load_statements()
    assert not own.keys() & lab.load_claims().keys()
    for name, statement in own.items():
        assert set(statement) == {"notebook", "claim", "parts"}, name
        for said in (statement["claim"], *statement["parts"]):
            assert text.has_chinese(said["zh"]), name
            assert not text.has_chinese(said["en"]), name


def test_claims_and_rules_have_the_same_parts():
    rules = read_rules()
    claims = lab.load_claims() | load_statements()
    assert rules.keys() == claims.keys()
    for name, claim in claims.items():
        assert [part["id"] for part in claim["parts"]] == list(rules[name]), name


def test_a_card_shows_its_parts_with_marks(toy, shown):
    verdict("toy", toy(1.1, remarks={"time": "of {n}"}, values={"n": 3}))
    assert shown[0]["text/plain"].splitlines() == [
        "Claim toy, section 1.1",
        "Sharing is light.",
        "◑ Holds in part  ✓ ?",
        "✓ It removes over half.",
        "  Rule: above 50% (by formula)",
        "  ✓ removed: 71.2% [computed]",
        "? It is faster.",
        "  its interval reaches both sides of the rule's bound",
        "  of 3",
        "  Rule: below 0.95x; control: above 1x (exploratory: the rule was not registered before "
        "such numbers were known)",
        "  ? ratio: 0.95x (0.8 to 1.1) [measured]",
        "  ✓ control: 2x (1.5 to 3) [measured]",
        "  tokens: 64 [computed]",
    ]
    record = shown[0][VERDICT_MIME]
    assert (record["form"], record["claim"], record["outcome"]) == (3, "toy", "holds in part")
    assert [part["id"] for part in record["parts"]] == ["size", "time"]
    assert record["parts"][1]["remark"] == "of 3"
    json.dumps(record)


def test_a_statement_has_a_card_and_is_stored_apart(toy, shown, monkeypatch):
    own = {key: value for key, value in CLAIM.items() if key != "section"}
    monkeypatch.setitem(verdict.__globals__, "load_claims", dict)
    monkeypatch.setitem(verdict.__globals__, "load_statements", lambda: {"toy": own})
    verdict("toy", toy())
    assert shown[0]["text/plain"].splitlines()[:3] == [
        "Our own statement toy",
        "Sharing is light.",
        "✓ Holds  ✓ ✓",
    ]
    assert VERDICT_MIME not in shown[0]
    assert shown[0][STATEMENT]["claim"] == "toy"


def test_a_card_follows_the_language_and_stores_english(toy, shown):
    lab.use_language("zh")
    verdict("toy", toy(remarks={"time": "of {n}"}, values={"n": 3}))
    lines = shown[0]["text/plain"].splitlines()
    assert lines[:4] == ["论断 toy，原文第 1.1 节", "共享更轻。", "✓ 成立  ✓ ✓", "✓ 移除过半。"]
    assert lines[4] == "  规则：大于 50%（由公式得出）"
    assert "  共 3" in lines
    assert text.missing == set()
    assert shown[0][VERDICT_MIME]["parts"][0]["rule"] == "above 50%"


@pytest.mark.parametrize(
    ("language", "line"),
    [
        ("en", "Measured on a busy machine: others used 1.3 cores meanwhile, so times may be off"),
        ("zh", "测量时机器正忙：其他程序占用了 1.3 个核，测得的时间可能不准"),
    ],
)
def test_a_card_says_that_the_machine_was_busy(toy, shown, monkeypatch, language, line):
    def card(outcome):
        verdict("toy", outcome)
        return shown.pop()

    lab.use_language(language)
    quiet = card(toy())
    others.cores = 1.3
    busy = card(toy())
    assert line in busy["text/plain"]
    assert line in busy["text/html"]
    assert line not in quiet["text/plain"] + quiet["text/html"]
    assert busy[VERDICT_MIME] == quiet[VERDICT_MIME]  # a column of today has no place for it
    others.cores = 0.5
    assert card(toy()) == quiet
    others.cores = 1.3
    monkeypatch.setitem(page._build, "widgets", False)
    assert card(toy()) == quiet  # a build asks before it begins


def test_a_wrong_verdict_is_refused(toy):
    with pytest.raises(ValueError, match=r"claim_id='no-such'.*'toy'"):
        verdict("no-such", toy())
    with pytest.raises(TypeError, match="outcome=True"):
        verdict("toy", True)
    other = judge("toy", evidence()[:1], rules={"size": RULES["size"]})
    with pytest.raises(ValueError, match=r"parts of toy=\['size'\]: expected \['size', 'time'\]"):
        verdict("toy", other)


@pytest.mark.parametrize("word", OUTCOMES)
def test_every_outcome_has_its_words_and_its_mark(word):
    assert text.has_chinese(lab.outcome_words(word, "zh"))
    assert lab.outcome_words(word).lower() == word
    assert len(mark(word)) == 1
