"""Judges claims part by part, by the rules in data/rules.toml.

A part is a statement that is true or false by itself. Its rule names the evidence of which it must
be true (`cases`), a test with a bar and a margin, and, where needed, controls that have to show
and a contrast in which it must fail. Each value is compared by its whole interval.
"""

from collections.abc import Iterable, Mapping

from efflab.errors import require, require_one_of
from efflab.experiments.registration import basis, read_rules
from efflab.lab.evidence import Evidence, by_id
from efflab.lab.outcome import Outcome, Part
from efflab.lab.text import speaking, tr, with_unit

TESTS: dict[str, str] = {
    "above": "above {high}",
    "below": "below {low}",
    "no less": "{low} or more",
    "no more": "{high} or less",
    "near": "between {low} and {high}",
    "between": "between {low} and {high}",
}
"""Test -> what it asks of a case: above and below are strict, the others take the bar itself."""
EXACT = "exactly {low}"
COUNTS = "clearly meeting the rule: {n_yes} of {n_cases}; clearly missing it: {n_no}"
MISSES_ALONE = "it lies outside what the rule allows"
SPANS_ALONE = "its interval reaches both sides of the rule's bound"
NO_CONTROL = "a control does not show what it must, so this test cannot decide"
NO_CONTRAST = "it holds under the condition; the contrast does not tell whether it needs it"


def judge(
    claim: str,
    evidence: Iterable[Evidence | Mapping],
    *,
    remarks: Mapping[str, str] | None = None,
    values: Mapping | None = None,
    rules: Mapping[str, Mapping] | None = None,
) -> Outcome:
    """The outcome of a claim on this evidence, by its parts' rules.

    `remarks`: part -> what to say beside its outcome, a template filled from `values`. Evidence
    that a rule asks for and does not get, or that no part uses, is a `ValueError`, as is a kind
    that the rule does not allow.
    """
    items, said, given = by_id(evidence), remarks or {}, values or {}
    rules = read_rules()[claim] if rules is None else rules
    for part in said:
        require_one_of("part", part, rules)
    used = {key for rule in rules.values() for key in evidence_ids(rule)}
    lacking, unused = sorted(used - items.keys()), sorted(items.keys() - used)
    require(not lacking, f"evidence of {claim}", sorted(items), f"{lacking} too")
    require(not unused, f"evidence of {claim}", unused, "only what a part's rule names")
    parts = []
    for part, rule in rules.items():
        parts.append(_judge_part(claim, part, rule, items, said.get(part, ""), given))
    return Outcome(tuple(parts))


def evidence_ids(rule: Mapping) -> list[str]:
    """The ids that a rule names: cases first, then contrast, controls and what is only shown."""
    controls = [control["case"] for control in rule.get("controls", [])]
    ids = [*rule["cases"], *_contrast(rule), *controls, *rule.get("shows", [])]
    return list(dict.fromkeys(ids))


def _contrast(rule: Mapping) -> list[str]:
    """The ids of the cases without the condition, in which the statement must fail."""
    return rule.get("contrast", {}).get("cases", [])


def decide(item: Evidence, rule: Mapping) -> str:
    """Whether one case "holds", "does not hold", or is "undecided": its interval spans the bar.

    >>> decide(Evidence("removed", "removed", 71.2, "%"), {"test": "above", "bar": 60})
    'holds'
    """
    require_one_of("test", rule["test"], TESTS)
    (low, high), (least, most) = item.ends, _limits(rule)
    inside, outside = {
        "above": (low > most, high <= most),
        "below": (high < least, low >= least),
        "no less": (low >= least, high < least),
        "no more": (high <= most, low > most),
    }.get(rule["test"], (least <= low and high <= most, high < least or low > most))
    return "holds" if inside else "does not hold" if outside else "undecided"


def _limits(rule: Mapping) -> tuple[float, float]:
    """The lower and upper limit of a rule's test, from its bar and margin."""
    if rule["test"] == "between":
        low, high = rule["bar"]
        return low, high
    bar, margin = rule["bar"], rule.get("margin", 0)
    return bar - margin, bar + margin


def _control_decisions(rule: Mapping, items: Mapping[str, Evidence]) -> dict[str, str]:
    """{id: outcome} of the controls; of several on one id it is the first that does not hold."""
    words: dict[str, str] = {}
    for control in rule.get("controls", []):
        if words.get(control["case"], "holds") == "holds":
            words[control["case"]] = decide(items[control["case"]], control)
    return words


def _judge_part(
    claim: str, part: str, rule: Mapping, items: Mapping, remark: str, values: Mapping
) -> Part:
    evidence = tuple(items[key] for key in evidence_ids(rule))
    for item in evidence:
        fits, kinds = item.kind in rule["kinds"], ", ".join(rule["kinds"])
        require(fits, f"kind of {item.id}", item.kind, "one of {kinds}", kinds=kinds)
    controls = _control_decisions(rule, items)
    shows = set(controls.values()) <= {"holds"}
    cases = {key: decide(items[key], rule) for key in [*rule["cases"], *_contrast(rule)]}
    decided = controls | cases  # a case that is a control too has its outcome as a case
    word, reason, counts = _decide_part(rule, decided) if shows else ("undecided", NO_CONTROL, {})
    condition = rule["condition"]["en"] if word == "holds if" else ""
    with speaking("en"):
        words = rule_words(rule, items)
    texts = dict(condition=condition, remark=remark, reason=reason, values={**values, **counts})
    where, since = basis(f"{claim}.{part}", rule)
    return Part(part, word, evidence, words, **texts, basis=where, since=since, decisions=decided)


def _decide_part(rule: Mapping, decided: Mapping[str, str]) -> tuple[str, str, dict]:
    """The outcome of a part whose controls show, the reason if it does not hold, and its values."""
    words = [decided[key] for key in rule["cases"]]
    yes, no, alone = words.count("holds"), words.count("does not hold"), len(words) == 1
    counts = dict(n_yes=yes, n_no=no, n_cases=len(words))
    if no:
        return "does not hold", MISSES_ALONE if alone else COUNTS, counts
    if yes < len(words):
        return "undecided", SPANS_ALONE if alone else COUNTS, counts
    without = {decided[key] for key in _contrast(rule)}
    if without <= {"holds"}:
        return "holds", "", {}
    if without == {"does not hold"}:
        return "holds if", "", {}
    return "undecided", NO_CONTRAST, {}


def rule_words(rule: Mapping, items: Mapping[str, Evidence]) -> str:
    """A rule in words, in the current language.

    "each of 4: above 60%; control: above 0.02".
    """
    n, unit = len(rule["cases"]), items[rule["cases"][0]].unit
    test = _test_words(rule, unit)
    words = [test if n == 1 else tr("each of {n}: {test}", n=n, test=test)]
    if _contrast(rule):
        words.append(tr("fails without the condition"))
    for control in rule.get("controls", []):
        test = _test_words(control, items[control["case"]].unit)
        words.append(tr("control: {test}", test=test))
    return tr("; ").join(words)


def _test_words(rule: Mapping, unit: str) -> str:
    limits, test = _limits(rule), rule["test"]
    low, high = (with_unit(limit, unit) for limit in limits)
    exact = limits[0] == limits[1] and test in ("near", "between")  # not merely as rounded
    return tr(EXACT if exact else TESTS[test], low=low, high=high)
