"""Notebook 16's figures and its explorer."""

from collections.abc import Mapping

from torch import Tensor

from efflab import cost
from efflab.bench import Timing
from efflab.devices import DEVICES
from efflab.errors import require_int, require_one_of
from efflab.lab import Choice, Slider, explorer, mark, number, tr
from efflab.lab.figures import (
    COLOURS,
    bars,
    blank,
    legend,
    line,
    loglog,
    panels,
    round_ticks,
    style,
)
from efflab.lab.text import tr_name
from efflab_rooms.decoding import measure


def first_difference(differences: Mapping[str, Tensor]):
    """How far each token's logits are from those of the whole text at once."""
    series, meta = {}, {}
    for name, values in differences.items():
        wrong = (values > measure.NOISE).nonzero().flatten().tolist()
        meta[tr("{name}: first wrong token", name=tr_name(name))] = wrong[0] if wrong else "–"
        series[tr_name(name)] = values.clamp_min(1e-7).tolist()
    n = len(next(iter(series.values())))
    title = tr("Where do the logits differ from those of the whole text? (measured)")
    titles = title, tr("token position"), tr("largest logit difference")
    fig = line(range(n), series, *titles, log_y=True, meta=meta, legend=legend("below"))
    return mark(fig, tr("below: rounding"), y=measure.NOISE)


def token_times(times: Mapping[int, Mapping[str, Timing]]):
    """Milliseconds of the next token over the text so far, computed anew and with a cache."""
    names = {"whole text": "whole text recomputed", "cached": "with a cache"}
    series = {tr(w): [1e3 * t[k].median for t in times.values()] for k, w in names.items()}
    last = list(times.values())[-1]
    meta = {tr("speed-up after {n} tokens", n=max(times)): last["whole text"].ratio(last["cached"])}
    title = tr("Time of the next token, stdlib-gpt (measured)")
    titles = title, tr("tokens so far"), tr("time (ms)")
    return _set_round_ticks(loglog(list(times), series, *titles, meta=meta, legend=legend("below")))


def cache_times(times: Mapping[int, Mapping[str, Timing]]):
    """Milliseconds of one token's attention over its cache, by what is cached."""
    kinds, longest = list(next(iter(times.values()))), max(times)
    last, name = times[longest], dict(most=tr_name(kinds[0]), n=number(longest))
    series = {tr_name(k): [1e3 * t[k].median for t in times.values()] for k in kinds}
    meta = {}
    for k in kinds[1:]:
        ratio = last[k].ratio(last[kinds[0]])
        meta[tr("{name} / {most}, time at {n} tokens", name=tr_name(k), **name)] = ratio
    title = tr("Attention of one token over its cache (measured)")
    titles = title, tr("text length (tokens)"), tr("time (ms)")
    return _set_round_ticks(loglog(list(times), series, *titles, meta=meta, legend=legend("below")))


def _set_round_ticks(fig):
    """Round ticks around the values of a figure."""
    values = [y for trace in fig.data for y in trace.y]
    return fig.update_yaxes(**round_ticks(min(values) / 2, max(values) * 2))


def formats(times: Mapping[str, Timing]):
    """Bytes and time of one token in each format, in per cent of torch's fp32."""
    base, bits = times["torch fp32"], measure.FORMAT_BITS
    series = {
        tr("bytes (computed)"): [100 * bits[name] / 32 for name in times],
        tr("time (measured)"): [100 * t.ratio(base) for t in times.values()],
    }
    meta = {tr_name(name): round(t.ratio(base), 3) for name, t in times.items()}
    title = tr("One token in five formats, % of torch's fp32")
    names = [tr_name(name) for name in times]
    options = dict(meta=meta, legend=legend("below"), text=".0f")
    return bars(names, series, title, "", "%", **options)


def batches(times: Mapping[int, Mapping[str, Timing]]):
    """Tokens per second of all texts against the milliseconds of a step, a point per batch."""
    sizes, meta, fig = list(times), {}, blank(tr("Throughput against latency (measured)"))
    for i, name in enumerate(times[sizes[0]]):
        seconds = [own[name].median for own in times.values()]
        speeds = [n / s for n, s in zip(sizes, seconds, strict=True)]
        look = dict(mode="lines+markers+text", name=tr_name(name), cliponaxis=False, **style(i))
        look |= dict(text=list(map(str, sizes)), textposition=("bottom right", "top left")[i % 2])
        fig.add_scatter(x=[1e3 * s for s in seconds], y=speeds, **look)
        ratio = tr("{name}: throughput, {n} texts / 1 text", name=tr_name(name), n=sizes[-1])
        meta[ratio] = speeds[-1] / speeds[0]
    steps = [x for trace in fig.data for x in trace.x]
    titles = tr("latency (ms per step); labels: batch size"), tr("throughput (tokens per second)")
    fig.update_xaxes(title_text=titles[0], **round_ticks(min(steps) / 2, max(steps) * 2))
    fig.update_yaxes(title_text=titles[1])
    return _set_round_ticks(fig).update_layout(legend=legend("below"), meta=meta)


def pages(waste: Mapping[int, float]):
    """Per cent of the allocated slots that are empty, by tokens in a page."""
    axes = tr("page size (tokens)"), tr("allocated but empty (%)")
    titles = tr("A paged cache (simulated)"), *axes
    meta = {tr("page size {n}: empty (%)", n=number(n)): waste[n] for n in waste}
    return bars(list(map(number, waste)), list(waste.values()), *titles, text=".1f", meta=meta)


# --- What serves -----------------------------------------------------------------------------

MODELS = ("qwen3-8b", "llama-3.1-70b", "gpt-oss-20b", "deepseek-v3", "gpt3-175b", "gpt2-xl")
SERVERS = ("RTX 4090", "L4", "A100 80GB SXM", "H100 SXM", "H200 SXM", "B200 SXM", "MI300X")
SERVERS += ("M4 Max",)
LENGTHS = [2**n for n in range(7, 18)]
FORMATS = tuple(cost.FORMATS)


def serving_of(model: str = "qwen3-8b"):
    """The explorer, with a model of the reader's own first."""
    names = tuple(dict.fromkeys((model, *MODELS)))

    @explorer(
        context=Slider(128, 2**17, 4096, scale="log2", label="context (tokens)"),
        batch=Slider(1, 256, 1, scale="log2", label="batch size (texts)"),
        model=Choice(names, model, label="model"),
        device=Choice(SERVERS, "H100 SXM", label="device"),
        format=Choice(FORMATS, "bf16", label="weight format"),
    )
    def serving(context=4096, batch=1, model=model, device="H100 SXM", format="bf16"):
        require_one_of("model", model, names)
        return tokens_per_second(context, batch, model, device, format)

    return serving


serving = serving_of()


def tokens_per_second(context, batch, model, device, format):
    """Tokens per second at best over the context, and what lies in memory."""
    require_int("context", context)
    require_int("batch", batch)
    require_one_of("device", device, DEVICES)
    require_one_of("format", format, FORMATS)
    config, chip = measure.find_config(model), DEVICES[device]
    here = measure.serve(config, chip, context, batch, format)
    speed = batch / here.seconds
    meta = {
        tr("tokens per second, at most"): speed,
        tr("per text"): 1 / here.seconds,
        tr("weights (GB)"): here.weights / 1e9,
        tr("cache (GB)"): here.cache / 1e9,
        tr("fits"): tr("yes") if here.fits else tr("no"),
    }
    case = dict(model=_short(model), format=format, device=device, speed=number(speed))
    title = tr("{model} in {format} on {device}: at most {speed} tokens per second", **case)
    if not here.fits:
        title += "<br>" + tr("weights and cache do not fit on one device")
    titles = [tr("in memory (GB)"), tr("maximum tokens per second (computed)")]
    fig = panels(titles, title, meta=meta, column_widths=[0.32, 0.68], horizontal_spacing=0.14)
    _add_memory(fig, here, chip.memory_bytes)
    _add_speeds(fig, config, chip, context, batch, format, speed)
    return fig.update_layout(height=430, margin_t=112, showlegend=False, barmode="stack")


def _short(model: str) -> str:
    """A path's last two parts at most."""
    return "/".join(model.replace("\\", "/").split("/")[-2:])


def _add_memory(fig, here: measure.Serving, memory: float | None) -> None:
    for i, (name, n_bytes) in enumerate({"weights": here.weights, "cache": here.cache}.items()):
        label = f"{tr(name)}<br>{number(n_bytes / 1e9, 3)}"
        look = dict(marker_color=COLOURS[i], text=label, textangle=0)
        fig.add_bar(x=[""], y=[n_bytes / 1e9], name=tr(name), **look, row=1, col=1)
    if memory:
        mark(fig, tr("device memory"), y=memory / 1e9, row=1, col=1)


def _add_speeds(fig, config, chip, context, batch, format, speed) -> None:
    """A line over the context: whole where it fits, dotted where not."""
    runs = {n: measure.serve(config, chip, n, batch, format) for n in LENGTHS}
    speeds = [batch / run.seconds for run in runs.values()]
    fits = [y if run.fits else None for y, run in zip(speeds, runs.values(), strict=True)]
    colour = COLOURS[0]
    dotted = dict(color=colour, dash="dot", width=1.5)
    fig.add_scatter(x=LENGTHS, y=speeds, mode="lines", line=dotted, row=1, col=2)
    fig.add_scatter(x=LENGTHS, y=fits, mode="lines", line=dict(color=colour, width=3), row=1, col=2)
    point = dict(mode="markers", marker=dict(size=14, color=COLOURS[1]))
    fig.add_scatter(x=[context], y=[speed], **point, row=1, col=2)
    ticks = {n: f"{n // 1024}k" if n >= 1024 else f"{n}" for n in LENGTHS[1::2]}
    axis = dict(type="log", tickvals=list(ticks), ticktext=list(ticks.values()))
    fig.update_xaxes(**axis, title_text=tr("context (tokens)"), row=1, col=2)
    limit = config.max_len
    if limit < LENGTHS[-1]:
        mark(fig, tr("longest text"), x=limit, row=1, col=2)
    fig.update_yaxes(rangemode="tozero", row=1, col=2)
