"""Notebook 15's budget game: a reader's entry beside ours, and a picture of all."""

from collections.abc import Mapping

from efflab.experiments import budget_game
from efflab.experiments.budget_game import LIMIT, Moves, rank
from efflab.lab import colours, figures, tr
from efflab.lab.labels import place_labels
from efflab.lab.text import tr_name

YOURS = "yours"
PIXELS = (690, 400)


def play(moves: Mapping) -> dict:
    """The score of a reader's moves; an unknown one is a `ValueError`, as for `Moves`."""
    return budget_game.play(checked(moves))


def checked(moves: Mapping) -> Moves:
    """Moves from a dict, its lists as tuples."""
    known = set(Moves.__dataclass_fields__)
    unknown = sorted(set(moves) - known)
    if unknown:
        raise ValueError(f"moves={unknown}: expected one of {', '.join(sorted(known))}")
    return Moves(**{k: tuple(v) if isinstance(v, list) else v for k, v in moves.items()})


def entries(mine: dict | None = None) -> list[dict]:
    """Our recorded entries and the reader's, the best first."""
    found = [dict(run, kind="recorded") for run in budget_game.entries()]
    if mine is not None:
        found.append(dict(mine, entry=YOURS, kind="measured"))
    return sorted(found, key=rank)


def rows(mine: dict | None = None) -> list[dict]:
    """The game's board."""
    return [
        {
            "place": place,
            "entry": entry["entry"],
            "MB": entry["n_bytes"] / 1e6,
            "fits": entry["fits"],
            "bits per byte": entry["bits"],
            "time / as shipped": entry["time"],
            "FLOPs (G)": entry["flops"] / 1e9,
            "kind": entry["kind"],
        }
        for place, entry in enumerate(entries(mine), start=1)
    ]


def picture(mine: dict | None = None):
    """Bits per byte over the file's size, with the limit."""
    found = entries(mine)
    title = tr("The budget game: at most 2 MB, best bits per byte, then fastest")
    best = found[0]
    meta = {tr("best entry, bits per byte"): best["bits"], tr("its MB"): best["n_bytes"] / 1e6}
    fig = figures.panels([""], title, meta=meta)
    fig.update_layout(height=PIXELS[1] + 120)
    fig.update_xaxes(title_text=tr("size of the file (MB)"))
    fig.update_yaxes(title_text=tr("bits per byte (lower is better)"))
    for kind, symbol in (("recorded", "circle-open"), ("measured", "star")):
        some = [entry for entry in found if entry["kind"] == kind]
        if some:
            fig.add_scatter(
                x=[entry["n_bytes"] / 1e6 for entry in some],
                y=[entry["bits"] for entry in some],
                mode="markers",
                name=tr(kind),
                hovertext=[tr_name(entry["entry"]) for entry in some],
                marker=dict(symbol=symbol, size=12, color=figures.COLOURS[kind == "measured"]),
            )
    fig.add_vline(x=LIMIT / 1e6, line=dict(color=colours.VERMILION, dash="dash", width=1.5))
    places = [(e["n_bytes"] / 1e6, e["bits"], tr_name(e["entry"])) for e in found]
    place_labels(fig, places, PIXELS)
    return fig
