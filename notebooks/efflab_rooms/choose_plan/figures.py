"""Notebook 15's figures and explorers."""

from collections import Counter
from functools import lru_cache

from efflab.advice import predictions
from efflab.advice.case import BUDGETS, CPUS, SERVING
from efflab.advice.ranking import advise
from efflab.errors import require_int, require_one_of
from efflab.estimate import Estimate
from efflab.experiments import profile_first
from efflab.experiments.budget_game import LIMIT
from efflab.experiments.registration import read_rules
from efflab.lab import Choice, Slider, colours, explorer, load_claims, number, tr
from efflab.lab.figures import COLOURS, bars, blank, error_bars, mark, panels, style
from efflab.lab.outcome import OUTCOMES
from efflab.lab.text import tr_name
from efflab_rooms.choose_plan import measure
from efflab_rooms.choose_plan.measure import A100, NOT_YET, TEXTS

# --- Advice ----------------------------------------------------------------------------------

DEVICES = ("V100 SXM2", "A100 40GB", A100, "H100 SXM", *CPUS)
MODELS = ("stdlib-gpt", "bert-base", "bert-large", "albert-base", "gpt2-xl")
MODELS += ("gpt3-1.3b", "gpt3-6.7b", "qwen3-8b", "gpt3-175b")
UNITS = {
    "latency": "time, unchanged model / with technique",
    "memory": "bytes, unchanged model / with technique",
    "training days": "days, unchanged model / with technique",
    "checkpoint": "bytes, unchanged model / with technique",
    "quality": "share of the quality kept",
    "decode": "time, unchanged model / with technique",
    "context": "tokens that fit, with technique / without",
}
KIND_COLOURS = dict(zip(("computed", "recorded", "published", "measured"), COLOURS, strict=False))


@explorer(
    devices=Slider(1, 1024, 1, scale="log2", label="devices"),
    model=Choice(MODELS, "gpt3-1.3b", label="model"),
    device=Choice(DEVICES, A100, label="device"),
    budget=Choice((*BUDGETS, *SERVING), "training days", label="budget"),
)
def plan(devices=1, model="gpt3-1.3b", device=A100, budget="training days"):
    """Gains on the budget, the surest first."""
    require_one_of("model", model, MODELS)
    gains = [row for row in _advice(model, device, budget, devices) if row["serves"]]
    names = [tr(row["technique"]) for row in gains]
    case = dict(model=model, n=devices, device=tr_name(device), budget=tr(budget))
    title = tr("{model}, {n} x {device}: what helps {budget}?", **case)
    meta = {tr("techniques that help"): len(gains), tr("first, gain at least"): 0.0}
    if gains:
        meta[tr("first, gain at least")] = round(gains[0]["gain_low"], 3)
        title += "<br>" + tr("first: {technique}", technique=names[0])
    n_lines = max(len(gains), 1)
    fig = blank(title, tr(UNITS[budget]), "", meta=meta, height=190 + 30 * n_lines)
    for kind in dict.fromkeys(row["kind"] for row in gains):
        _add_gains(fig, [row for row in gains if row["kind"] == kind], kind)
    if not gains:
        fig.add_scatter(x=[1], y=[tr("nothing here helps")], showlegend=False)
    over_first = [-0.6, n_lines - 0.2]  # room for the words over the first point
    fig.update_yaxes(categoryorder="array", categoryarray=names[::-1], range=over_first)
    fig.update_xaxes(type="linear" if budget == "quality" else "log", exponentformat="none")
    fig.update_layout(showlegend=True, margin_t=88, legend_title_text=tr("kind"))
    return fig.update_layout(title=dict(xref="container", x=0.02))  # labels push the plot aside


@lru_cache(maxsize=64)
def _advice(model: str, device: str, budget: str, devices: int) -> list[dict]:
    return advise(model, device, budget, n_devices=devices)


def _add_gains(fig, gains: list[dict], kind: str) -> None:
    """A point at the least gain, and a whisker to the most."""
    names, colour = [tr(row["technique"]) for row in gains], KIND_COLOURS[kind]
    low, high = ([row[key] for row in gains] for key in ("gain_low", "gain_high"))
    texts = dict(text=[f"{number(gain)}x" for gain in low], textposition="top center")
    look = dict(mode="markers+text", marker=dict(size=11, color=colour), **texts)
    whiskers = error_bars(low, low, high, thickness=2, color=colour)
    fig.add_scatter(x=low, y=names, name=tr(kind), error_x=whiskers, **look)


LEAST = 0.02
"""Where a lead of 0 stands on the logarithmic axis."""


def leads():
    """Lead of the light structures by budget and model; right of 1 they gain most."""
    leads = measure.leads()
    least = {budget: min(leads[budget, m] for m in measure.MODELS) for budget in BUDGETS}
    meta = {tr(budget): number(lead) for budget, lead in least.items()}
    title = tr("Is a light structure's gain the largest? (computed)")
    fig = blank(title, tr("best light structure / best other technique"), "", meta=meta, height=420)
    for i, model in enumerate(measure.MODELS):
        own = [leads[budget, model] for budget in BUDGETS]
        look = dict(mode="markers", marker=style(i, size=11)["marker"], name=model)
        shown = dict(customdata=[number(lead) for lead in own], hovertemplate="%{customdata}")
        fig.add_scatter(x=[max(x, LEAST) for x in own], y=list(meta), **look, **shown)
    zeros = [tr(budget) for budget, lead in least.items() if lead < LEAST]
    words = dict(mode="text", text=["0"] * len(zeros), textposition="top center", showlegend=False)
    fig.add_scatter(x=[LEAST] * len(zeros), y=zeros, hoverinfo="skip", **words)
    fig.update_yaxes(categoryorder="array", categoryarray=list(meta)[::-1])
    fig.update_xaxes(type="log", exponentformat="none")
    fig.update_layout(showlegend=True)
    return mark(fig, x=1)


@explorer(
    devices=Slider(8, 1024, 64, scale="log2", label="devices"),
    texts=Slider(512, 4096, TEXTS, scale="log2", label="texts per step"),
)
def splits(devices=64, texts=TEXTS):
    """Tensor, pipeline and data degree of the fastest plan against the size of the model."""
    require_int("devices", devices)
    require_int("texts", texts)
    plans = measure.plans(devices, texts)
    small, huge = measure.borders(devices, texts)
    case = dict(n=devices, texts=number(texts))
    title = tr("{n} devices, {texts} texts per step: the fastest split (computed)", **case)
    meta = {tr("only data parallelism up to (B)"): round(small, 2) or tr("none")}
    meta |= {tr("always a pipeline from (B)"): round(huge, 2) or tr("none")}
    meta |= {tr("models that fit"): len(plans)}
    fig = blank(title, tr("parameters (B)"), tr("degree of parallelism"), meta=meta)
    sizes = [size for size, _ in plans]
    for i, (name, degree) in enumerate({"data": "dp", "tensor": "tp", "pipeline": "pp"}.items()):
        degrees = [getattr(plan, degree) for _, plan in plans]
        fig.add_scatter(x=sizes, y=degrees, name=tr(name), mode="lines+markers", **style(i))
    fig.update_xaxes(type="log", exponentformat="none")
    return fig.update_yaxes(type="log", dtick=0.30103, exponentformat="none")  # powers of 2


# --- Measured, recorded and played -----------------------------------------------------------


@explorer(
    width=Choice(profile_first.WIDTHS, 384, label="width"),
    tokens=Choice(profile_first.LENGTHS, 1024, label="tokens"),
)
def first_change(width=384, tokens=1024):
    """Each part's share of the FLOPs and of the time, and the time after changing that part."""
    require_one_of("width", width, profile_first.WIDTHS)
    require_one_of("tokens", tokens, profile_first.LENGTHS)
    shape = measure.first_of(width, tokens)
    names = [tr(part) for part in profile_first.PARTS]
    meta = {
        tr(who): ", ".join(f"{tr(part)} {n}/{own.total()}" for part, n in own.most_common())
        for who, own in zip(("profile", "FLOP count"), shape["choices"].values(), strict=True)
    }
    place = dict(width=width, n=number(tokens))
    title = tr("{width} wide, {n} tokens: what to change first (recorded)", **place)
    title += "<br>" + "; ".join(f"{who}: {choice}" for who, choice in meta.items())
    meta[tr("time, profile's choice / FLOP count's")] = round(shape["rival"], 3)
    left, right = tr("share before (%)"), tr("time, this part changed / before")
    fig = panels([left, right], title, meta=meta)
    flops = [100 * share for share in shape["flops"].values()]
    fig.add_bar(x=names, y=flops, name=tr("FLOPs"), marker_color=COLOURS[0], row=1, col=1)
    shares = [[100 * end for end in _ends(share)] for share in shape["shares"].values()]
    _add_bars(fig, names, shares, tr("time"), COLOURS[1], row=1, col=1)
    _add_bars(fig, names, list(map(_ends, shape["time"].values())), "", COLOURS[2], row=1, col=2)
    return mark(fig, y=1, row=1, col=2).update_layout(margin_t=110)


def _ends(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.mean, estimate.low, estimate.high


def _add_bars(fig, names, ends, name: str, color: str, **where) -> None:
    """Bars with whiskers; `ends`: (value, low, high) of each."""
    y, low, high = zip(*ends, strict=True)
    whiskers, look = error_bars(y, low, high, thickness=1), dict(marker_color=color)
    fig.add_bar(x=names, y=y, name=name, error_y=whiskers, showlegend=bool(name), **look, **where)


def rivals():
    """Time after the profile's choices over after the count's in every shape; left of 1 it wins."""
    cases = profile_first.cases(measure.first_runs())
    shapes = [(w, n) for n in profile_first.LENGTHS for w in profile_first.WIDTHS]  # upwards
    places = [tr("{width} wide, {n} tokens", width=w, n=number(n)) for w, n in shapes]
    meta = {tr("shapes in which they differ (mean over processes)"): round(cases["differ"].mean, 1)}
    title = tr("Time after the profile's choices / after the FLOP count's (recorded)")
    fig = blank(title, tr("time, profile's choice / FLOP count's"), "", meta=meta, height=460)
    for i, (key, name) in enumerate({"rival": "one change", "twice": "two changes"}.items()):
        own = [cases[f"{key}-{width}-{n}"] for width, n in shapes][::-1]
        x, low, high = zip(*map(_ends, own), strict=True)
        symbols = ["circle-open" if e.mean == 1 else "circle" for e in own]
        look = dict(mode="markers", marker=dict(symbol=symbols, size=9, color=COLOURS[i]))
        look |= dict(error_x=error_bars(x, low, high, thickness=1), name=tr(name))
        heights = [row + 0.14 - 0.28 * i for row in reversed(range(len(shapes)))]
        fig.add_scatter(x=x, y=heights, **look)
    fig.update_yaxes(tickvals=list(range(len(shapes))), ticktext=places, automargin=True)
    rule = read_rules()["profile-first"]["choice"]
    return mark(fig, tr("the rule's bar"), x=rule["bar"] + rule["margin"])


def prediction_figure():
    """Predicted against measured, log-log; on the line the prediction is right."""
    rows = predictions.predictions()
    summary = predictions.summary(rows)
    sums = {"pairs that differ": "pairs", "in order": "right", "out of order": "wrong"}
    meta = {tr(name): sum(row[key] for row in summary) for name, key in sums.items()}
    title = tr("Time, size, quality: predicted here, measured in notebook 14 (computed, recorded)")
    titles = (title, tr("measured / model as shipped"), tr("predicted / model as shipped"))
    fig = blank(*titles, meta=meta, height=460)
    for i, what in enumerate(dict.fromkeys(row["what"] for row in rows)):
        own = [row for row in rows if row["what"] == what]
        x, low, high = ([row[key] for row in own] for key in ("measured", "low", "high"))
        y, least, most = ([row[key] for row in own] for key in ("predicted", "least", "most"))
        places = [f"{tr_name(row['stage'])}, {row['engine']}" for row in own]
        whiskers = dict(error_x=error_bars(x, low, high, thickness=1))
        whiskers |= dict(error_y=error_bars(y, least, most, thickness=1))
        look = dict(mode="markers", marker=style(i, size=9)["marker"], hovertext=places)
        fig.add_scatter(x=x, y=y, name=tr(what), **look, **whiskers)
    values = [row[key] for row in rows for key in ("measured", "predicted")]
    _add_diagonal(fig, [min(values), max(values)], color=colours.DARK, dash="dash")
    return _log_axes(fig)


def _add_diagonal(fig, ends: list[float], factor: float = 1, **line) -> None:
    y, look = [factor * end for end in ends], dict(width=1, **line)
    fig.add_scatter(x=ends, y=y, mode="lines", line=look, showlegend=False)


def _log_axes(fig):
    fig.update_xaxes(type="log", exponentformat="none")
    return fig.update_yaxes(type="log", exponentformat="none")


def game(mine: dict | None = None):
    """File size, with the limit, and bits per byte of each entry, the best on top."""
    entries = measure.entries(mine)
    best, title = entries[0], tr("The budget game: the best model in 2 MB")
    meta = {tr("best: bits per byte"): best["bits"], tr("best: size (MB)"): best["n_bytes"] / 1e6}
    titles = tr("file size (MB)"), tr("bits per byte (lower is better)")
    fig = panels(titles, title, meta=meta, shared_yaxes=True)
    for i, (kind, symbol) in enumerate({"recorded": "circle-open", "measured": "star"}.items()):
        own = [entry for entry in entries if entry["kind"] == kind]
        names, look = [tr_name(e["entry"]) for e in own], dict(symbol=symbol, size=12)
        values = [e["n_bytes"] / 1e6 for e in own], [e["bits"] for e in own]
        for column, x in enumerate(values if own else (), start=1):
            points = dict(x=x, y=names, mode="markers", marker={**look, "color": COLOURS[i]})
            fig.add_scatter(**points, name=tr(kind), showlegend=column == 1, row=1, col=column)
    fig.add_vline(x=LIMIT / 1e6, line=dict(dash="dot", color=colours.MID_GREY), row=1, col=1)
    order = [tr_name(entry["entry"]) for entry in reversed(entries)]
    fig.update_yaxes(categoryorder="array", categoryarray=order, automargin=True)
    return fig.update_layout(height=120 + 34 * len(entries))


# --- The end ---------------------------------------------------------------------------------


def ledger():
    """How many claims of each section came to what, in the colours of the verdicts' cards."""
    outcomes = measure.outcomes()
    section = {name: claim["section"].split(".")[0] for name, claim in load_claims().items()}
    sections = list(dict.fromkeys(section.values()))
    counts = Counter((section[claim], outcome) for claim, outcome in outcomes.items())
    palette = {outcome: look[-1] for outcome, look in OUTCOMES.items()}
    palette |= {NOT_YET: colours.LIGHT_GREY}
    present = [outcome for outcome in palette if outcome in outcomes.values()]
    series = {measure.in_words(o): [counts[s, o] for s in sections] for o in present}
    meta = {name: sum(own) for name, own in series.items()}
    title = tr("What became of the article's claims, by section (recorded)")
    titles = (title, tr("section"), tr("claims"))
    fig = bars(sections, series, *titles, stacked=True, meta=meta)
    for bar, outcome in zip(fig.data, present, strict=True):
        bar.marker.color = palette[outcome]
        # the second of two outcomes of one colour is hatched
        shares = [o for o in present if palette[o] == palette[outcome]]
        bar.marker.pattern.shape = "/" if outcome in shares[1:] else ""
    return fig


EXAMPLE = [(0.5, 0.7), (2, 1.4), (4, 9), (10, 12), (40, 25), (90, 60), (300, 1000)]
"""(measured, guess) of nobody, for readers who have none yet."""


def calibration(guesses: list[dict]):
    """Each guess against what was measured; between the dashed lines it is within a factor of 2."""
    some = [row for row in guesses if row["guess"] > 0 and row["measured"] > 0]  # on a log axis
    points = [(row["measured"], row["guess"]) for row in some] or EXAMPLE
    example = "An example reader (simulated): your own guesses will appear here"
    title = tr("Your guesses against the measurements" if some else example)
    meta = {tr("guesses"): len(guesses)}
    fig = blank(title, tr("measured"), tr("your guess"), meta=meta, height=440, margin_t=80)
    values = [value for point in points for value in point]
    ends = [min(values) / 2, max(values) * 2]
    for factor, dash in ((1, "solid"), (2, "dash"), (0.5, "dash")):
        _add_diagonal(fig, ends, factor, color=colours.GREY, dash=dash)
    questions = [f"{row['notebook']}: {tr(row['question'])}" for row in some]
    marker = dict(size=10, color=COLOURS[0] if some else colours.SOFT_GREY)
    x, y = zip(*points, strict=True)
    look = dict(mode="markers", marker=marker, hovertext=questions, showlegend=False)
    fig.add_scatter(x=x, y=y, **look)
    return _log_axes(fig)
