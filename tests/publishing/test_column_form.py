"""The schema of a column: closed at every level, in step with the code, no network asked."""

import json

import pytest
from jsonschema import Draft202012Validator
from ledgers import LESS, SMALL, column, figure

from efflab.base.json_files import read_json
from efflab.base.stored import FIGURE, PART, RECORD, TEMPLATE
from efflab.experiments.provenance import FEATURES
from efflab.lab.outcome import BASES, OF_PARTS, OUTCOMES
from efflab.lab.text import KINDS
from efflab.publishing.column import FORM, SCHEMA, parse
from efflab.publishing.ledger import claims

SCHEMA_FILE = read_json(FORM)
PARTS = SCHEMA_FILE["$defs"]


def objects(schema):
    """Every object of a schema, itself among them."""
    inner = schema.values() if isinstance(schema, dict) else schema
    found = [schema] if isinstance(schema, dict) else []
    return found + [x for v in inner if isinstance(v, dict | list) for x in objects(v)]


def test_it_is_a_schema_that_refers_to_nothing_outside():
    Draft202012Validator.check_schema(SCHEMA_FILE)
    targets = {o["$ref"] for o in objects(SCHEMA_FILE) if "$ref" in o}
    assert targets == {f"#/$defs/{name}" for name in PARTS}  # and nothing stands there unused


def test_every_object_is_closed_and_whole():
    described = [o for o in objects(SCHEMA_FILE) if o.get("type") == "object"]
    assert len(described) == 8
    values = PARTS["figure"]["properties"]["values"]  # whatever its template names
    for one in (one for one in described if one != values):
        assert one["additionalProperties"] is False
        left_out = TEMPLATE.keys() if one == PARTS["figure"] else set()
        assert one["properties"].keys() - set(one["required"]) == left_out


def test_it_is_in_step_with_the_code():
    record, part, one = (PARTS[x]["properties"] for x in ("record", "judged", "figure"))
    assert record.keys() == RECORD.keys()
    assert record["outcome"]["enum"] == list(OUTCOMES)
    assert part["outcome"]["enum"] == list(OF_PARTS)
    assert part["basis"]["enum"] == list(BASES)
    assert part.keys() == PART.keys()
    assert one.keys() == {**FIGURE, **TEMPLATE}.keys()
    assert one["kind"]["enum"] == list(KINDS)
    assert list(PARTS["machine"]["properties"]["features"]["properties"]) == list(FEATURES)
    assert SCHEMA_FILE["properties"]["schema"]["const"] == SCHEMA
    assert len(claims()) <= SCHEMA_FILE["properties"]["verdicts"]["maxItems"]


def body():
    return json.loads(column(LESS, SMALL).text())


def refused(changed, root):
    with pytest.raises(ValueError, match="expected") as refusal:
        parse(json.dumps(changed).encode(), root)
    return str(refusal.value)


@pytest.mark.parametrize("key", ["$ref", "$schema", "$dynamicRef", "$id"])
def test_a_column_cannot_name_a_schema(key, root):
    """Were one fetched, the refused network would say so."""
    elsewhere = {key: "http://203.0.113.1/schema.json"}
    assert refused(body() | elsewhere, root).startswith(f"keys of column=['{key}']: expected no ot")
    changed = body()
    changed["verdicts"][0]["parts"][0]["figures"][0] |= elsewhere
    assert refused(changed, root).startswith(
        f"keys of verdicts.big.parts.amount.figures.removed=['{key}']"
    )


@pytest.mark.parametrize("version", ["2.13.0\n", "２.13", "", "-1"])
def test_what_a_pattern_alone_would_let_through_is_refused(version, root):
    changed = body()
    changed["versions"]["torch"] = version
    assert refused(changed, root).startswith("versions.torch=")


def test_a_decimal_is_no_whole_number(root):
    changed = body()
    changed["machine"]["threads"] = 4.0
    assert refused(changed, root) == "machine.threads=4.0: expected 1 to 4096"
    assert (
        refused(body() | {"schema": 1.0}, root)
        == "schema=1.0: expected 3, which `efflab ledger run` of today writes"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            dict(id="A b"),
            "figures.A b.id='A b': expected small letters and digits with - betw",
        ),
        (dict(values={"n": None}), "figures.more.values.n=None"),
        (dict(values={}), "verdicts.big.parts.amount.figures.more={"),
        (dict(name=""), "figures.more.name='': expected 1 to 300 characters"),
        (dict(unit="\u2028"), r"figures.more.unit='\u2028': expected a text in one line"),
        (dict(unit="x" * 41), "0 to 40 characters"),
        (dict(value=1e31), "figures.more.value=1e+31: expected a finite number of at most 10³⁰"),
        (dict(low=-1e31), "figures.more.low=-1e+31: expected a finite number of at most 10³⁰"),
        (dict(kind=None), "figures.more.kind=None: expected one of ['measured', "),
    ],
)
def test_a_figures_refusal_names_it_and_what_is_allowed(change, message, root):
    changed = body()
    changed["verdicts"][0]["parts"][0]["figures"].append(figure("more", 1) | change)
    assert message in refused(changed, root)


def test_a_figure_or_a_verdict_without_its_name_is_named_by_its_place(root):
    changed = body()
    del changed["verdicts"][1]["parts"][0]["figures"][0]["id"]
    assert refused(changed, root).startswith("keys of verdicts.small.parts.few.figures.0=['high', ")
    changed["verdicts"][1]["parts"][0]["figures"][0]["value"] = "1"
    assert refused(changed, root).startswith(
        "verdicts.small.parts.few.figures.0.value='1': expected a finite"
    )
    del changed["verdicts"][0]["claim"]
    assert refused(changed, root).startswith("keys of verdicts.0=['form', ")


def test_one_verdict_more_than_are_allowed_is_refused_unread(root):
    most = SCHEMA_FILE["properties"]["verdicts"]["maxItems"]
    told = refused(body() | dict(verdicts=[7] * (most + 1)), root)
    assert told.endswith(f"expected a list of at least one, at most {most}")
