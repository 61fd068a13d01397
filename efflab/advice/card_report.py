"""A card as lines of text: one screen of 80 columns."""

from textwrap import wrap

from efflab.advice.chapters import GB, MB, size
from efflab.base.alignment import align
from efflab.base.significant import significant
from efflab.devices import DEVICES

WIDTH, INDENT = 80, 10
COLUMNS = {
    "GiB": "memory_gib",
    "needed": "devices_for_weights",
    "context": "max_context",
    "batch": "max_batch",
    "prefill ms": "prefill_seconds",
    "tokens/s": "decode_tokens_per_second",
}
"""Heading -> key of a device's row."""
OF_DECODERS = ("context", "batch", "tokens/s")
DECODER = (
    "In 16 bits. needed: devices for the weights; context: tokens of one text; batch: texts of "
    "{tokens} tokens. Prefill of {tokens} tokens and tokens/s after them, of one text, are bounds "
    "by FLOPs and bytes: no kernel beats them, real ones are slower."
)
ENCODER = (
    "In 16 bits. needed: devices for the weights; prefill: one text of {tokens} tokens, a bound by "
    "FLOPs and bytes: no kernel beats it, real ones are slower."
)
UNSURE = "?: no datasheet: bins and sources differ, or FLOP/s are worked out from cores"
TRAINING = "{states} of states (bf16 and fp32, Adam, ZeRO-0), {kept} of activations "
TRAINING += "(one text of {tokens} tokens, fused attention, no logits)"


def report(card: dict) -> str:
    """The card's lines."""
    lines = [f"{card['name']} ({card['model_type']}): {_count(card['params'])} parameters"]
    if card["devices"] is not None:
        lines += _whole(card)
    notes = [line for note in card["notes"] for line in wrap(f"Note: {note}", WIDTH)]
    return "\n".join([*lines, *notes])


def _whole(card: dict) -> list[str]:
    is_decoder = card["kv_bytes_per_token"] is not None
    footnotes = (DECODER if is_decoder else ENCODER).format(tokens=f"{card['tokens']:,}")
    columns = {h: key for h, key in COLUMNS.items() if is_decoder or h not in OF_DECODERS}
    lines = [line for head, text in _costs(card).items() for line in _wrap(head, text)]
    lines += ["", *_devices(card["devices"], columns), *wrap(footnotes, WIDTH), UNSURE, ""]
    rows = (_wrap(f"notebook {row['notebook']}", row["text"]) for row in card["chapters"])
    return [*lines, *(line for row in rows for line in row)]


def _wrap(head: str, text: str) -> list[str]:
    head = head.ljust(INDENT) if len(head) < INDENT else f"{head}  "
    return wrap(head + text, WIDTH, subsequent_indent=" " * len(head))


def _count(n: int) -> str:
    return f"{significant(n / 1e9)} billion" if n >= 1e9 else f"{significant(n / 1e6)} million"


def _costs(card: dict) -> dict[str, str]:
    unit, name = (GB, "GB") if card["weight_bytes"]["bf16"] >= GB else (MB, "MB")
    sizes = (f"{format} {significant(n / unit)}" for format, n in card["weight_bytes"].items())
    lines = {"shape": card["shape"]}
    if card["experts"]:
        lines["active"] = f"{_count(card['active_params'])} parameters per token: {card['experts']}"
    lines["weights"] = f"{', '.join(sizes)} {name}"
    if card["kv_bytes_per_token"] is not None:
        lines["cache"] = f"{size(card['kv_bytes_per_token'])} per token: {card['cache']}"
    states, kept = (size(n) for n in card["training_bytes"].values())
    tokens = f"{card['tokens']:,}"
    lines["training"] = TRAINING.format(states=states, kept=kept, tokens=tokens)
    return lines


def _devices(rows: list[dict], columns: dict[str, str]) -> list[str]:
    table = [["device", *columns], *([_name(row), *_cells(row, columns)] for row in rows)]
    return align(table, right=[False, *[True] * len(columns)])


def _name(row: dict) -> str:
    source = DEVICES[row["device"]].source if row["device"] in DEVICES else ""
    return f"{row['device']} ?" if "unsure" in source else row["device"]


def _cells(row: dict, columns: dict[str, str]) -> list[str]:
    """A device's numbers; "-" where one does not apply or nothing fits."""
    numbers = ((row[key], 1e3 if "ms" in heading else 1) for heading, key in columns.items())
    return ["-" if value is None else significant(value * unit) for value, unit in numbers]
