"""Advice as lines of text: ranked techniques, their cost, and the next commands."""

from collections.abc import Mapping
from math import ceil

from efflab.advice.case import SERVING, Case
from efflab.advice.ranking import rank
from efflab.advice.serving import baseline
from efflab.base.alignment import align
from efflab.base.limits import entry_of
from efflab.base.significant import significant

HEADERS = ("technique", "gain", "quality lost", "notebook")


def report(case: Case) -> str:
    """The advice as a table, with sources, reasons for what does not help, and next commands."""
    rows = rank(case)
    serving = [row for row in rows if row["serves"]]
    notes = footnotes(serving)
    lines = [heading(case), over(case), ""]
    table = [list(HEADERS), *(_cells(row, notes) for row in serving)]
    lines += align(table) if serving else ["nothing here helps"]
    lines += [f"[{number}] {note}" for note, number in notes.items()]
    lines += ["    Another model may lose more."] if notes else []
    if serving:
        lines += ["", "Sources of the gains:"]
        lines += [f"  {row['technique']}: {source_text(row)}" for row in serving]
    lines += ["", "Does not help this budget:"]
    lines += [f"  {row['technique']}: {row['why']}" for row in rows if not row["serves"]]
    if serving:
        lines += ["", "Go on with:"]
        lines += [f"  {command}" for command in commands(serving)]
    return "\n".join(lines)


def heading(case: Case) -> str:
    """The case in one line."""
    name = case.device_name
    devices = name if case.n_devices == 1 else f"{case.n_devices} x {name}"
    return f"{case.name}, {case.tokens} tokens, {devices}: what helps {case.budget}?"


def over(case: Case) -> str:
    """What gains are relative to; for serving with its seconds, or the tokens that fit."""
    if case.budget not in SERVING:
        return "gains over fp32 weights and values on one device"
    plain = baseline(case)
    on = "one device" if plain.n_devices == 1 else f"{plain.n_devices} devices that share it"
    words = f"gains over weights and cache in 16 bits, one text on {on}"
    if case.gpu is None or not case.config.causal:
        return words
    memory = case.gpu.memory_bytes or 0.0
    n_bytes, n_tokens = plain.weights(case.config), plain.longest(memory)
    figure = f"at least {significant(1000 * plain.seconds(case))} ms per token"
    if case.budget == "context":
        figure = f"{n_tokens:,} tokens fit, and the model takes {case.config.max_len:,}"
    sizes = [significant(gb / 1e9) for gb in (n_bytes, memory)]
    sentence = f"{words}:\n{figure}; {sizes[0]} GB of weights, {sizes[1]} GB per device"
    return sentence if n_tokens else f"{sentence}: {ceil(n_bytes / memory)} would hold them"


def gain_text(row: dict) -> str:
    """ "2.1x", "1.4x to 1.9x", "9,300 tokens"; "" if there is no number.

    >>> gain_text(dict(gain_low=1.444, gain_high=1.927, unit="x")), gain_text(dict(gain_low=None))
    ('1.44x to 1.93x', '')
    """
    if row["gain_low"] is None:
        return ""
    ends = [significant(row[name]) + row["unit"] for name in ("gain_low", "gain_high")]
    return " to ".join(dict.fromkeys(ends))


def source_text(row: dict) -> str:
    """Kind and place of a gain, and the model that it was measured on."""
    return f"{row['kind']}{_on(row['kind'], row['gain_model'])}, {row['source']}"


def footnotes(rows: list[dict]) -> dict[str, int]:
    """{what a loss is of, and which model lost it: its number}, each once."""
    notes = [note for note in map(loss_note, rows) if note]
    return {note: number for number, note in enumerate(dict.fromkeys(notes), start=1)}


def loss_note(row: dict) -> str:
    """ "of bits per byte, recorded on stdlib-gpt, 3.2 M parameters"; "" without a loss."""
    if not row["lost"]:
        return ""
    metric = row["metric"].partition(" (")[0]
    return f"of {metric}, {row['lost_kind']}{_on(row['lost_kind'], row['lost_model'])}"


def loss_text(row: dict, notes: Mapping[str, int]) -> str:
    """ "3 % [1]" with its footnote's number, "not recorded", or in words that nothing is lost."""
    if row["lost"] is None:
        return "not recorded"
    if row["lost"] == 0:
        return row["metric"]
    return f"{significant(row['lost'], 2)} % [{notes[loss_note(row)]}]"


def commands(rows: list[dict]) -> list[str]:
    """Commands that run the first techniques' notebooks, without those not written yet."""
    numbers = dict.fromkeys(row["notebook"] for row in rows)
    return [f"efflab run {n}" for n in numbers if entry_of(n)][:3]


def _on(kind: str, model: str | None) -> str:
    return f" {'for' if kind == 'published' else 'on'} {model}" if model else ""


def _cells(row: dict, notes: Mapping[str, int]) -> list[str]:
    return [row["technique"], gain_text(row), loss_text(row, notes), row["notebook"]]
