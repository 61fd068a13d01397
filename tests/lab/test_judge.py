"""How parts are judged: by whole intervals, with controls and contrasts; and what is refused."""

import pytest

from efflab.estimate import Estimate
from efflab.lab import Evidence, judge
from efflab.lab.judge import TESTS, decide, evidence_ids, read_rules, rule_words
from efflab.lab.outcome import Outcome, Part


def item(low, high, key="x", kind="measured"):
    return Evidence.of(key, key, Estimate((low + high) / 2, low, high), "%", kind)


RULE = dict(basis="sampled", cases=["x"], test="above", bar=60, kinds=["measured"])


@pytest.mark.parametrize(
    ("test", "bar", "margin", "words"),
    [  # on intervals 40..50, 50..60, 58..62, 60..70, 70..80
        ("above", 60, 0, "nn??h"),
        ("above", 60, 5, "nnn?h"),
        ("below", 60, 0, "h??nn"),
        ("below", 60, 5, "h?nnn"),
        ("no less", 60, 0, "n??hh"),
        ("no less", 60, 10, "?hhhh"),
        ("no more", 60, 0, "hh??n"),
        ("no more", 60, 10, "hhhh?"),
        ("near", 60, 5, "n?h?n"),
        ("near", 60, 10, "?hhh?"),
        ("between", [55, 65], 0, "n?h?n"),
    ],
)
def test_a_case_is_decided_by_its_whole_interval(test, bar, margin, words):
    rule = dict(test=test, bar=bar, margin=margin)
    intervals = (40, 50), (50, 60), (58, 62), (60, 70), (70, 80)
    found = [decide(item(*ends), rule) for ends in intervals]
    signs = {"holds": "h", "does not hold": "n", "undecided": "?"}
    assert "".join(signs[word] for word in found) == words


@pytest.mark.parametrize("test", TESTS)
def test_noise_helps_neither_side(test):
    rule = dict(test=test, bar=[55, 65] if test == "between" else 60, margin=2)
    assert decide(item(1, 150), rule) == "undecided"


def test_an_exact_value_at_the_bar():
    at = Evidence("x", "x", 60, "%")
    words = [decide(at, dict(test=test, bar=60)) for test in ("above", "below")]
    assert words == ["does not hold"] * 2
    assert {decide(at, dict(test=test, bar=60)) for test in ("no less", "no more", "near")} == {
        "holds"
    }


def outcome_of(rule, *items):
    (part,) = judge("toy", items, rules={"only": rule}).parts
    return part


def test_a_part_is_true_of_each_of_its_cases():
    rule = RULE | dict(cases=["x", "y"])
    high, low, wide = ((70, 80), (40, 50), (50, 70))

    def word(a, b):
        return outcome_of(rule, item(*a), item(*b, "y")).outcome

    assert [word(high, high), word(high, wide), word(high, low), word(wide, low)] == [
        "holds",
        "undecided",
        "does not hold",
        "does not hold",
    ]
    part = outcome_of(rule, item(*high), item(*low, "y"))
    counts = "clearly meeting the rule: 1 of 2; clearly missing it: 1"
    assert part.reason.format(**part.values).startswith(counts)
    assert part.decisions == {"x": "holds", "y": "does not hold"}


def test_a_control_that_does_not_show_leaves_it_undecided():
    rule = RULE | dict(controls=[dict(case="control", test="below", bar=10)])
    for ends, word in (((1, 2), "holds"), ((5, 15), "undecided"), ((20, 30), "undecided")):
        assert outcome_of(rule, item(70, 80), item(*ends, "control")).outcome == word


@pytest.mark.parametrize("case", ["x", "control"])
def test_every_control_has_to_show_also_two_on_one_id(case):
    """Also one on a case's own id."""
    shows, fails = (dict(case=case, test="below", bar=bar) for bar in (100, 1))
    for controls, word in (([shows, shows], "holds"), ([fails, shows], "undecided")):
        for rule in (RULE | dict(controls=controls), RULE | dict(controls=controls[::-1])):
            items = [item(70, 80), item(70, 80, "control")]
            assert outcome_of(rule, *items[: 1 if case == "x" else 2]).outcome == word


def test_a_case_is_decided_by_what_is_stored_of_it():
    for value, word in ((60.00001, "does not hold"), (60.001, "holds")):
        exact = Evidence("x", "x", value, "%")
        assert decide(exact, RULE) == word
        stored = Evidence(**exact.record() | dict(values={}))
        assert decide(stored, RULE) == word


def test_a_condition_needs_the_contrast():
    rule = RULE | dict(contrast=dict(cases=["without"]), condition=dict(en="it fits", zh="放得下"))
    for ends, word in (((40, 50), "holds if"), ((70, 80), "holds"), ((55, 65), "undecided")):
        part = outcome_of(rule, item(70, 80), item(*ends, "without"))
        assert part.outcome == word
        assert part.condition == ("it fits" if word == "holds if" else "")
    assert outcome_of(rule, item(40, 50), item(40, 50, "without")).outcome == "does not hold"


def test_a_rule_in_words():
    rule = RULE | dict(cases=["x", "y"], controls=[dict(case="z", test="near", bar=1, margin=0.5)])
    items = {key: item(70, 80, key) for key in "xyz"}
    assert rule_words(rule, items) == "each of 2: above 60%; control: between 0.5% and 1.5%"
    equal = dict(cases=["x"], test="near", bar=0)
    assert rule_words(equal, items) == "exactly 0%"
    assert rule_words(equal | dict(bar=1, margin=1e-9), items) == "between 1% and 1%"
    assert evidence_ids(rule | dict(shows=["w"])) == ["x", "y", "z", "w"]


@pytest.mark.parametrize(
    ("rule", "items", "message"),
    [
        (RULE, [], r"evidence of toy=\[\]: expected \['x'\] too"),
        (
            RULE,
            [item(1, 2), item(1, 2, "y")],
            r"evidence of toy=\['y'\]: expected only what a",
        ),
        (RULE, [item(1, 2, kind="recorded")], "kind of x='recorded': expected one of measured"),
        (RULE | dict(test="over"), [item(1, 2)], "test='over': expected one of 'above', 'below'"),
    ],
)
def test_evidence_that_the_rule_does_not_ask_for_is_refused(rule, items, message):
    with pytest.raises(ValueError, match=message):
        outcome_of(rule, *items)


def test_a_remark_of_an_unknown_part_is_refused():
    with pytest.raises(ValueError, match="part='other': expected one of 'only'"):
        judge("toy", [item(1, 2)], rules={"only": RULE}, remarks={"other": "so"})


# --- The word of a claim ---------------------------------------------------------------------


def part(word, key="a", **more):
    reason = "" if word.startswith("holds") else "why"
    condition = "it fits" if word == "holds if" else ""
    return Part(key, word, (item(1, 2),), "above 60%", condition, reason=reason, **more)


@pytest.mark.parametrize(
    ("words", "word", "holds"),
    [
        (["holds"], "holds", True),
        (["holds", "holds"], "holds", True),
        (["holds if"], "holds if", True),
        (["holds", "holds if"], "holds if", True),
        (["holds", "undecided"], "holds in part", None),
        (["holds if", "does not hold"], "holds in part", None),
        (["does not hold", "does not hold"], "does not hold", False),
        (["does not hold", "undecided"], "undecided", None),
        (["undecided"], "undecided", None),
    ],
)
def test_the_one_word_of_its_parts(words, word, holds):
    outcome = Outcome(tuple(part(w, f"p{i}") for i, w in enumerate(words)))
    assert (outcome.outcome, outcome.holds) == (word, holds)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Outcome(()), r"parts=\[\]: expected at least one"),
        (lambda: Outcome((part("holds"), part("holds"))), "expected at least one, with ids that d"),
        (lambda: Outcome((None,)), "part=None: expected a Part"),
        (lambda: part("holds in part"), "outcome='holds in part': expected one of"),
        (lambda: part("holds", basis="felt"), "basis='felt': expected one of 'registered'"),
        (lambda: part("holds", basis="registered"), "since=None: expected a day where registered"),
        (lambda: part("holds", since="2026-11-28"), "since='2026-11-28': expected a day where"),
        (lambda: Part("a", "holds", (), "r"), r"evidence=\(\): expected at least one number"),
        (lambda: Part("a", "holds", (item(1, 2),), ""), "rule='': expected the rule by which"),
        (lambda: Part("a", "holds", (item(1, 2),), "r", "c"), "condition='c': expected a cond"),
        (lambda: Part("a", "undecided", (item(1, 2),), "r"), "reason='': expected why it does"),
    ],
)
def test_an_outcome_that_contradicts_itself_is_refused(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()


# --- The rules of the repository -------------------------------------------------------------


def every_rule():
    for claim, parts in read_rules().items():
        for name, rule in parts.items():
            yield claim, name, rule
            if "next" in rule:
                yield claim, f"{name}.next", rule["next"]


KEYS = {"basis", "cases", "test", "bar", "kinds"}
MORE = {"margin", "shows", "controls", "contrast", "condition", "source", "next", "design"}


@pytest.mark.parametrize("place", list(every_rule()), ids=lambda p: f"{p[0]}.{p[1]}")
def test_a_rule_is_whole(place):
    _, name, rule = place
    assert rule.keys() >= KEYS
    assert rule.keys() <= KEYS | MORE
    assert rule["basis"] in ("formula", "table", "sampled")
    assert rule["test"] in TESTS
    assert rule["cases"]
    assert ("contrast" in rule) == ("condition" in rule)
    assert rule["basis"] != "sampled" or rule.get("source")
    if name.endswith(".next"):
        assert rule["source"]["seeds"]
        assert rule["source"]["record"]
    for control in rule.get("controls", []):
        assert control.keys() <= {"case", "test", "bar", "margin"}
        assert control["test"] in TESTS
