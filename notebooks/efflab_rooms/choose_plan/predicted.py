"""Notebook 15's predictions beside what the case study measured: errors, and pairs in order."""

from efflab.advice import predictions
from efflab.lab import colours, figures, tr
from efflab.lab.text import tr_name


def rows(device: str = "CPU with VNNI") -> list[dict]:
    """For each quantity: how many pairs differ beyond noise, how many are in order, the errors."""
    found = predictions.summary(predictions.predictions(device))
    return [
        {
            "quantity": row["what"],
            "predictions": row["predictions"],
            "pairs that differ": row["pairs"],
            "in order": row["right"],
            "out of order": row["wrong"],
            "not told": row["untold"],
            "in order by the middles": row["middle"],
            "median error (%)": 100 * row["median_error"],
            "largest error (%)": 100 * row["largest_error"],
            "kind": "recorded",
        }
        for row in found
    ]


def picture(device: str = "CPU with VNNI"):
    """Predicted over measured, log-log; on the line the prediction is right."""
    found = predictions.predictions(device)
    total = predictions.summary(found)
    title = tr("The plan's predictions beside the case study (computed, recorded)")
    meta = {tr("pairs that differ"): sum(row["pairs"] for row in total),
            tr("in order"): sum(row["right"] for row in total),
            tr("out of order"): sum(row["wrong"] for row in total)}  # fmt: skip
    fig = figures.blank(title, tr("measured, over the model as shipped"),
                        tr("predicted"), meta=meta, height=460)  # fmt: skip
    for i, what in enumerate(dict.fromkeys(row["what"] for row in found)):
        mine = [row for row in found if row["what"] == what]
        low = [max(row["measured"] - row["low"], 0) for row in mine]
        high = [max(row["high"] - row["measured"], 0) for row in mine]
        whiskers = dict(type="data", symmetric=False, array=high, arrayminus=low, thickness=1)
        texts = [f"{tr_name(row['stage'])}, {row['engine']}" for row in mine]
        above = [row["most"] - row["predicted"] for row in mine]
        below = [row["predicted"] - row["least"] for row in mine]
        reach = dict(type="data", symmetric=False, array=above, arrayminus=below, thickness=1)
        fig.add_scatter(x=[row["measured"] for row in mine], y=[row["predicted"] for row in mine],
                        name=tr(what), mode="markers", hovertext=texts, error_x=whiskers,
                        error_y=reach,
                        marker=figures.style(i, size=9)["marker"])  # fmt: skip
    ends = [f([row[key] for row in found for key in ("measured", "predicted")]) for f in (min, max)]
    fig.add_scatter(x=ends, y=ends, mode="lines", showlegend=False,
                    line=dict(color=colours.DARK, dash="dash", width=1))  # fmt: skip
    fig.update_xaxes(type="log", exponentformat="none")
    return fig.update_yaxes(type="log", exponentformat="none")
