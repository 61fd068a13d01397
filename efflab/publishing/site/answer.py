"""What the planner's page asks of efflab: `efflab card` and `efflab advise`, in JSON.

It runs in the reader's browser, by Pyodide: what it imports is in the standard library.
"""

import json
from collections.abc import Mapping

from efflab.advice.card import read_card
from efflab.advice.case import Case
from efflab.advice.ranking import whole
from efflab.base.json_files import parse_json
from efflab.base.words import Words, translate
from efflab.devices import Device, own_device
from efflab.errors import Refusal, require
from efflab.families import MOST_BYTES

FRAME = "{name} is {value}: expected {allowed}"
MISSING = "{name} is missing or null: expected {allowed}"
UNKNOWN = "efflab does not know the model_type {value}; of its {n} types the nearest are {near}"
BROKEN = "this is not JSON: {reason}, in line {line}, column {column}"
FIELDS = dict(n_devices="devices", seq_len="tokens")
FIELDS |= {name: name for name in ("tflops", "gb", "gbps", "device", "budget")}
"""An argument's name -> the page's field; any other is the model's."""


def answer(asked: Mapping, texts: Mapping[str, str]) -> dict:
    """The `json` of a card, or of advice where a `budget` is asked for, and the `words` in it.

    `asked`: a `preset` or the `text` of a config.json, with its file's `name` if any; `own`:
    `own_device`'s arguments, in place of `device` too; `device`, `budget`, `n_devices`, `seq_len`
    as of `Case`. `texts`: {English: the page's language}, by which `words` are translated. What is
    refused has a `refusal` instead, a sentence for the reader, and the `field` that it belongs to.
    """
    try:
        own = own_device(**asked["own"]) if asked.get("own") else None
        value = _advice(asked, own) if asked.get("budget") else _card(asked, own)
        return dict(json=json.dumps(value, indent=1, allow_nan=False), words=_words(value, texts))
    except Refusal as refusal:
        field = FIELDS.get(refusal.name, "model")
        return dict(field=field, refusal=_sentence(refusal, texts))
    except Exception as error:
        # whatever else a hostile file leads to: the page goes on
        reason = f"{type(error).__name__}: {error}"[:200]
        words = Words("efflab cannot work this model out ({reason})", reason=reason)
        return dict(field="model", refusal=translate(words, texts))


def _sentence(refusal: Refusal, texts: Mapping[str, str]) -> str:
    """A refusal for the page's reader, who knows JSON and perhaps no Python."""
    if refusal.allowed == BROKEN:
        return translate(Words(BROKEN, **refusal.fields), texts)
    frame, allowed = MISSING if refusal.value == "None" else FRAME, refusal.words
    if refusal.allowed in texts:
        allowed = texts[refusal.allowed].format(**refusal.fields)
    if frame == FRAME and "near" in refusal.fields:
        frame = UNKNOWN
    values = dict(name=refusal.name, value=refusal.value, allowed=allowed)
    return texts.get(frame, frame).format(**(refusal.fields | values))


def _source(asked: Mapping) -> str | dict:
    if "preset" in asked:
        return asked["preset"]
    size = len(asked["text"])
    require(size <= MOST_BYTES, "size", size, "at most {most:,} characters", most=MOST_BYTES)
    try:
        return parse_json(asked["text"])
    except ValueError as error:
        cause = error.__cause__
        if not isinstance(cause, json.JSONDecodeError):
            raise
        place = dict(reason=cause.msg, line=cause.lineno, column=cause.colno)
        raise Refusal("source", "", BROKEN, place) from None


def _card(asked: Mapping, own: Device | None) -> dict:
    return read_card(_source(asked), own) | (dict(name=asked["name"]) if asked.get("name") else {})


def _advice(asked: Mapping, own: Device | None) -> dict:
    device = own or asked["device"]
    case = Case(_source(asked), device, asked["budget"], asked["n_devices"], asked["seq_len"])
    found = whole(case)
    return found | dict(asked=found["asked"] | dict(model=asked.get("name") or case.name))


def _words(value, texts: Mapping[str, str]) -> dict[str, str]:
    """{a text of the value: its translation}, of those that have one."""
    if isinstance(value, str):
        words = translate(value, texts)
        return {} if words == value else {str(value): words}
    inner = value.values() if isinstance(value, Mapping) else value
    parts = inner if isinstance(value, Mapping | list) else ()
    return {text: words for part in parts for text, words in _words(part, texts).items()}
