"""Evidence: numbers with a kind and an interval, under ids; what is refused."""

import numpy as np
import pytest

from efflab import lab
from efflab.lab import text
from efflab.lab.evidence import Evidence, evidence_line

RATIO = Evidence("ratio", "ratio", np.float64(1 / 3), "x", "computed", low=0.3, high=0.4)


def test_a_line_has_value_interval_and_kind():
    assert evidence_line(RATIO) == "ratio: 0.333x (0.3 to 0.4) [computed]"
    assert RATIO.ends == (0.3, 0.4)
    assert evidence_line(Evidence("n", "kernels", 5)) == "kernels: 5 [computed]"


def test_an_exact_count_is_its_own_interval():
    count = Evidence.exact("wrong", "wrong values of {n}", 0, n=64)
    assert (count.low, count.high, count.kind) == (0, 0, "measured")
    assert evidence_line(count) == "wrong values of 64: 0 [measured]"


def test_what_is_stored_gives_the_same_figure_back():
    assert lab.by_id([RATIO.record()])["ratio"].record() == RATIO.record()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(value=float("nan")), "value=nan: expected a finite number"),
        (dict(value=-np.inf), "value=-inf: expected a finite number"),
        (dict(value=10**400), "value=.*: expected a finite number"),
        (dict(value=None), "value=None: expected a number, got NoneType"),
        (dict(value=True), "value=True: expected a number, got bool"),
        (dict(value="1"), "value='1': expected a number, got str"),
        (dict(value=np.array([1.0])), "value=.*: expected a number, got ndarray"),
        (dict(kind="measured"), "ratio: low=None: expected an interval: it was measured"),
        (dict(kind="recorded"), "ratio: low=None: expected an interval"),
        (dict(low=0.5), r"value, low=0\.5: expected both ends of the interval or neither"),
        (dict(low=0.5, high=float("nan")), "value, high=nan: expected a finite number"),
        (dict(low="0.5", high=2), "value, low='0.5': expected a number, got str"),
        (dict(low=2, high=0.5), r"value=1\.0: expected a number in its interval, 2 to 0\.5"),
        (dict(low=1.1, high=2), r"value=1\.0: expected a number in its interval, 1\.1 to 2"),
        (dict(low=0.5, high=0.9), r"value=1\.0: expected a number in its interval, 0\.5 to 0\.9"),
        (dict(id="Two words"), "id='Two words': expected small letters"),
        (dict(id=""), "id='': expected small letters"),
        (dict(id=7), "id=7: expected a text, got int"),
        (dict(name=""), "name='': expected a name"),
        (dict(name="{n} tokens"), "values={}: expected the fields of its name: n"),
        (dict(values={"n": 7}), "values={'n': 7}: expected the fields of its name"),
        (dict(name=7), "name=7: expected a text, got int"),
        (dict(unit=None), "unit=None: expected a text, got NoneType"),
        (dict(kind=["computed"]), "kind=.*: expected a text, got list"),
        (dict(kind="felt"), "kind='felt': expected one of"),
    ],
)
def test_evidence_that_is_no_number_or_contradicts_itself_is_refused(given, message):
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        Evidence(**dict(id="ratio", name="ratio", value=1.0) | given)


def test_a_name_is_a_template_and_is_stored_filled_in():
    text.use_texts({"time at {n} tokens": "{n} 个词元时的耗时"})
    item = Evidence("time-64", "time at {n} tokens", 2.0, "x", values={"n": 64})
    lab.use_language("zh")
    assert evidence_line(item) == "64 个词元时的耗时：2 倍 [计算]"
    stored = item.record()
    assert (stored["name"], stored["template"]) == ("time at 64 tokens", "time at {n} tokens")
    assert lab.by_id([stored]) == {"time-64": item}
    with pytest.raises(ValueError, match="name='time at 99 tokens': expected 'time at 64 tokens'"):
        lab.by_id([stored | {"name": "time at 99 tokens"}])


def test_a_strangers_template_reaches_no_attribute():
    stored = dict(id="a", name="7", template="{n.__class__}", value=1, values={"n": 7})
    with pytest.raises(ValueError, match="values"):
        lab.by_id([stored])


NAN = dict(id="ratio", name="ratio", value=float("nan"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("ab", "evidence='a': expected an Evidence"),
        ([None], "evidence=None: expected an Evidence"),
        ([dict(id="a", name="a")], "evidence=.*: expected its id, name and value"),
        ([NAN | dict(colour=2)], "evidence=.*and no keys but id"),
        ([NAN], "value=nan"),
        ([RATIO, RATIO], "evidence=.*: expected ids that differ"),
    ],
)
def test_what_is_no_evidence_is_refused(given, message):
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        lab.by_id(given)
