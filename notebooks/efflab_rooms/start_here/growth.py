"""Notebook 00's first picture: how models, and the compute spent on them, have grown."""

import numpy as np

from efflab.data import published
from efflab.errors import require_one_of
from efflab.lab import figures, tr


def growth_rows() -> list[dict]:
    """Rows of data/published/growth.csv; `flops` is 6 P T (3 P T where the row says so), or None.

    `year` is the month of publication as a decimal year.
    """
    rows = published("growth")
    for row in rows:
        year, month = map(int, row["published"].split("-"))
        params, tokens = row["params"], row["tokens"]
        flops = row["flops_per_param_token"] * params * tokens if tokens else None
        row |= dict(year=year + (month - 0.5) / 12, flops=flops)
    return rows


def doubling_months(first: dict, last: dict, what: str) -> float:
    """Months in which `what` ("params" or "flops") doubled between two rows, on average."""
    require_one_of("what", what, ("params", "flops"))
    months = 12 * (last["year"] - first["year"])
    return months / np.log2(last[what] / first[what])


def growth():
    """Parameters (published) and training compute (computed) of dense models over time."""
    rows = {row["model"]: row for row in growth_rows()}
    bert, palm, llama = (rows[m] for m in ("BERT-large", "PaLM", "Llama 3.1 405B"))
    meta = {
        tr("parameters doubled every (months), BERT-large to PaLM"): doubling_months(
            bert, palm, "params"
        ),
        tr("parameters, Llama 3.1 405B over PaLM"): llama["params"] / palm["params"],
        tr("training compute, Llama 3.1 405B over PaLM"): llama["flops"] / palm["flops"],
    }
    titles = [tr("parameters (published)"), tr("training FLOPs (computed: 6 P T)")]
    title = tr("Model size stood still after 2022; the compute spent on it did not")
    fig = figures.panels(titles, title, meta=meta, horizontal_spacing=0.1)
    named = {"GPT": "bottom center", "BERT-large": "bottom right", "GPT-2 XL": "top left"}
    named |= {"T5-11B": "top left", "GPT-3": "top left", "PaLM": "top center"}
    named |= {"Chinchilla": "bottom center", "Llama 3.1 405B": "top center"}
    for column, what in enumerate(("params", "flops"), start=1):
        shown = [row for row in rows.values() if row[what]]
        fig.add_scatter(
            x=[row["year"] for row in shown],
            y=[row[what] for row in shown],
            text=[row["model"] if row["model"] in named else "" for row in shown],
            textposition=[named.get(row["model"], "top left") for row in shown],
            customdata=[[row["model"], row["source"]] for row in shown],
            hovertemplate="%{customdata[0]}: %{y:.3s}<br>%{customdata[1]}<extra></extra>",
            mode="markers+text",
            marker=dict(size=9, color=figures.COLOURS[column - 1]),
            showlegend=False,
            row=1,
            col=column,
        )
    fig.update_yaxes(range=[7.6, 12.4], col=1)
    fig.update_yaxes(range=[18.5, 26.5], col=2)
    fig.update_xaxes(range=[2016.4, 2026.8], tickvals=list(range(2017, 2026, 2)), tickformat="d")
    fig.update_yaxes(type="log", exponentformat="power", dtick=1)
    return fig
