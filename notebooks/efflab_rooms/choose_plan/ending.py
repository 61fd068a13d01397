"""Notebook 15's end: all verdicts in one picture, and the reader's own calibration."""

from collections import Counter

from efflab.data import DATA_DIR
from efflab.lab import colours, figures, load_claims, outcome_words, tr
from efflab.lab.guesses import calibration, kept
from efflab.lab.page import live
from efflab.lab.text import language
from efflab.lab.verdict import OUTCOMES
from efflab.stored import read_verdicts

NOT_YET = "not judged yet"
NOT_YET_COLOUR = colours.LIGHT_GREY


def outcomes() -> dict[str, str]:
    """Claim -> the outcome that the built notebooks stored, in the order of the article."""
    stored = read_verdicts(DATA_DIR / "verdicts.json")
    found = {v["claim"]: v["outcome"] for verdicts in stored.values() for v in verdicts}
    return {claim: found.get(claim, NOT_YET) for claim in load_claims()}


def ledger_rows() -> list[dict]:
    """A line for each claim of the article."""
    found, claims = outcomes(), load_claims()
    return [
        {
            "claim": claim,
            "section": claims[claim]["section"],
            "outcome": _words(outcome),
            "notebook": claims[claim]["notebook"],
        }
        for claim, outcome in found.items()
    ]


def _words(outcome: str) -> str:
    return outcome_words(outcome, language()) if outcome in OUTCOMES else tr(NOT_YET)


def ledger_picture():
    """How many claims of each section came to what, in the colours of the verdicts' cards."""
    found, claims = outcomes(), load_claims()
    sections = list(dict.fromkeys(claim["section"].split(".")[0] for claim in claims.values()))
    counts = Counter((claims[c]["section"].split(".")[0], o) for c, o in found.items())
    used = [o for o in (*OUTCOMES, NOT_YET) if o in found.values()]
    series = {_words(o): [counts[s, o] for s in sections] for o in used}
    title = tr("What became of the article's claims, by section (recorded)")
    meta = {_words(o): list(found.values()).count(o) for o in used}
    fig = figures.bars(sections, series, title, tr("section"), tr("claims"), stacked=True,
                       meta=meta)  # fmt: skip
    for bar, outcome in zip(fig.data, used, strict=True):
        bar.marker.color = OUTCOMES[outcome][3] if outcome in OUTCOMES else NOT_YET_COLOUR
    return fig


def guesses() -> list[dict]:
    """The reader's guesses on this machine; none in a build, whose pages are everybody's."""
    return kept() if live() else []


def calibration_rows(rows: list[dict]) -> list[dict]:
    """How good the reader's guesses are, in a line; none without guesses."""
    if not rows:
        return []
    found = calibration(rows)
    return [
        {
            "guesses": found["guesses"],
            "within a factor of 2 (%)": 100 * found["within_2"],
            "typical factor": found["typical"],
            "too high (%)": None if found["too_high"] is None else 100 * found["too_high"],
            "kind": "measured",
        }
    ]


def calibration_picture(rows: list[dict]):
    """Each guess over what was measured; between the dashed lines it is within a factor of 2."""
    some = [row for row in rows if row["guess"] > 0 and row["measured"] > 0]
    title = tr("Your guesses over what was measured")
    if not some:
        title += "<br>" + tr("none yet: they are kept when you write a number and reveal it")
    meta = {tr("guesses"): len(rows)}
    fig = figures.blank(title, tr("measured"), tr("your guess"), meta=meta, height=440)
    low, high = 0.1, 1000.0
    if some:
        ends = [row[key] for row in some for key in ("guess", "measured")]
        low, high = min(ends) / 2, max(ends) * 2
    for factor, dash in ((1, "solid"), (2, "dash"), (0.5, "dash")):
        fig.add_scatter(
            x=[low, high],
            y=[low * factor, high * factor],
            mode="lines",
            showlegend=False,
            line=dict(color=colours.GREY, dash=dash, width=1),
        )
    fig.add_scatter(x=[row["measured"] for row in some], y=[row["guess"] for row in some],
                    mode="markers", showlegend=False,
                    hovertext=[f"{row['notebook']}: {tr(row['question'])}" for row in some],
                    marker=dict(size=10, color=figures.COLOURS[0]))  # fmt: skip
    fig.update_xaxes(type="log", exponentformat="none")
    fig.update_yaxes(type="log", exponentformat="none")
    return fig.update_layout(margin_t=80)
