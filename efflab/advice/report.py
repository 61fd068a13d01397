"""Advice as lines of text: ranked techniques, their cost, and the next commands."""

from efflab.advice.case import Case
from efflab.advice.ranking import advise
from efflab.base.alignment import align
from efflab.base.limits import CATALOG
from efflab.base.significant import significant

HEADERS = ("technique", "gain", "kind", "quality lost", "notebook")


def report(case: Case) -> str:
    """The advice as a table, with sources, reasons for what does not serve, and next commands."""
    rows = advise(
        case.model, case.device, case.budget, n_devices=case.n_devices, seq_len=case.seq_len
    )
    serving = [row for row in rows if row["serves"]]
    lines = [heading(case), ""]
    table = [list(HEADERS), *map(_cells, serving)]
    lines += align(table) if serving else ["nothing here serves it"]
    lines += ["", "Sources of the gains:"]
    lines += [f"  {row['technique']}: {row['source']}" for row in serving]
    lines += ["", "Does not serve this budget:"]
    lines += [f"  {row['technique']}: {row['why']}" for row in rows if not row["serves"]]
    if serving:
        lines += ["", "Go on with:"]
        lines += [f"  {command}" for command in commands(serving)]
    return "\n".join(lines)


def heading(case: Case) -> str:
    """The case in one line."""
    devices = case.device if case.n_devices == 1 else f"{case.n_devices} x {case.device}"
    return f"{case.model}, {case.tokens} tokens, {devices}: what serves {case.budget}?"


def gain_text(row: dict) -> str:
    """ "2.1x", "1.4x to 1.9x"; "" if there is no number.

    >>> gain_text(dict(gain_low=1.444, gain_high=1.927)), gain_text(dict(gain_low=None))
    ('1.44x to 1.93x', '')
    """
    if row["gain_low"] is None:
        return ""
    ends = [f"{significant(row[name])}x" for name in ("gain_low", "gain_high")]
    return " to ".join(dict.fromkeys(ends))


def loss_text(row: dict) -> str:
    """ "3.0 % of bits per byte (stdlib-gpt) [recorded]", or "not recorded"."""
    if row["lost"] is None:
        return "not recorded"
    if row["lost"] == 0:
        return row["metric"]
    return f"{significant(row['lost'], 2)} % of {row['metric']} [{row['lost_kind']}]"


def commands(rows: list[dict]) -> list[str]:
    """Commands that run the first techniques' notebooks, without those not written yet."""
    known = CATALOG.read_text(encoding="utf-8") if CATALOG.exists() else ""
    numbers = dict.fromkeys(row["notebook"] for row in rows)
    return [f"efflab run {n}" for n in numbers if f'["{n}"]' in known][:3]


def _cells(row: dict) -> list[str]:
    return [row["technique"], gain_text(row), row["kind"], loss_text(row), row["notebook"]]
