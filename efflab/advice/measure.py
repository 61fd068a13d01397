"""A local model run here: prefill, decode and quality in every format, beside what was predicted.

Constants are fitted once to random models on this machine (`experiments.decoder_steps`), before the
reader's model is timed. One thread.
"""

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
import torch
from torch import Tensor

from efflab.advice.step_times import fit, predict, work
from efflab.base.alignment import align
from efflab.base.busy import BUSY_CORES, others
from efflab.base.places import ROOT
from efflab.base.significant import significant
from efflab.bench import one_thread
from efflab.compression.decoders import FORMATS, Decoder, make_decoder
from efflab.config import ModelConfig
from efflab.errors import require, require_one_of
from efflab.estimate import bootstrap
from efflab.evaluate import half_window_nats
from efflab.experiments import decoder_steps
from efflab.experiments.decoder_steps import DECODE, PREFILL, Step, time_step
from efflab.experiments.provenance import machine, machine_name
from efflab.experiments.record import EXPERIMENTS, machines, read_record, with_ends
from efflab.families import read
from efflab.model import Transformer
from efflab.pretrained import load_checkpoint, load_decoder, load_minilm, mean_pool

MOST_TOKENS, MOST_WINDOWS, MOST_LINES = 256, 16, 64
WIDTH = 80


@dataclass(frozen=True)
class Local:
    """A model from a folder; `tokenizer` is None where the folder has no tokenizer.json."""

    name: str
    model: Transformer
    tokenizer: Any


def load_local(folder: Path) -> Local:
    """A decoder of today, a BERT, or a checkpoint of ours; weights from safetensors alone."""
    require(folder.is_dir(), "folder", str(folder), "a folder with a model's files")
    if (folder / "card.json").is_file():
        model = load_checkpoint(folder / "model.safetensors")
    elif read(folder).model_type == "bert":
        model = load_minilm(folder)[0]
    else:
        model = load_decoder(folder)
    path, tokenizer = folder / "tokenizer.json", None
    if path.is_file():
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(path))
    return Local(folder.name, model.eval(), tokenizer)


def constants_here(say: Callable[[str], None], runs: Path) -> Mapping:
    """This machine's constants: from its record in data/experiments or in `runs`, else made now."""
    here = machine_name(machine())
    for place in (EXPERIMENTS, runs):
        known = (place / f"{decoder_steps.NAME}.json").exists()
        if known and here in machines(decoder_steps.NAME, place):
            record = read_record(decoder_steps.NAME, here, place)
            if record["complete"]:
                return fit(record["runs"])
    say("once on this machine, some four minutes: steps of random models, to fit the predictions")
    return fit(decoder_steps.run(folder=runs)["runs"])


@one_thread()
def measure(
    folder: Path,
    text: str | None = None,
    formats: Iterable[str] = FORMATS,
    *,
    runs: Path,
    say: Callable[[str], None] = print,
) -> dict:
    """A model's rows by format: bytes, milliseconds predicted and measured, quality on `text`.

    The steps are a prompt of `n_tokens` and, for a decoder, one token after it. `runs`: where this
    machine's fitted steps are kept.
    """
    formats = list(formats)
    require(bool(formats), "formats", formats, "one format or more")
    for format in formats:
        require_one_of("formats", format, FORMATS)
    local = load_local(folder)
    rate = None if text is None else quality_of(local, text)
    config, constants = local.model.config, constants_here(say, runs)
    n_tokens = min(MOST_TOKENS, config.max_len // 2)
    phases = (PREFILL, DECODE) if config.causal else (PREFILL,)
    rows: list[dict] = []
    others.clear()
    for format in formats:
        decoder = make_decoder(local.model, format)
        row: dict = dict(format=format, nbytes=decoder.nbytes)
        for step in (Step(phase, n_tokens) for phase in phases):
            told = predict(constants[format], work(config, format, step))
            ms = 1e3 * time_step(decoder, step)
            row[step.phase] = dict(ms=ms) | with_ends("predicted", told)
        row["quality"] = None if rate is None else rate(decoder)
        rows.append(row)
        say(f"{format}: measured")
    about = dict(name=local.name, machine=machine_name(machine()), n_tokens=n_tokens)
    return about | dict(causal=config.causal, busy_cores=others.cores, rows=rows)


def measure_folder(folder: Path, text: Path | None = None, formats: str | None = None) -> dict:
    """`measure` as the command calls it: a text's file, formats with commas, progress on stderr."""
    try:
        content = None if text is None else text.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"--text={str(text)!r}: expected a file in UTF-8 ({error})") from None
    chosen = FORMATS if formats is None else formats.split(",")
    say = partial(print, file=sys.stderr, flush=True)
    return measure(folder, content, chosen, runs=ROOT / "runs" / "measure", say=say)


# --- Quality ---------------------------------------------------------------------------------


def quality_of(local: Local, text: str) -> Callable[[Decoder], dict]:
    """What a format costs on a text, as a function of its decoder: {"value", "low", "high"}.

    For a decoder bits a token more than in fp32, paired over windows, and "bits", its own; for an
    encoder the mean cosine of lines' vectors with fp32's.
    """
    require(local.tokenizer is not None, "text", "given", "a tokenizer.json in the folder")
    if local.model.config.causal:
        ids = windows(local.tokenizer.encode(text).ids, local.model.config)
        before = window_bits(local.model, ids)

        def rate(decoder: Decoder) -> dict:
            after = window_bits(decoder, ids)
            return with_ends("value", bootstrap(after - before)) | dict(bits=float(after.mean()))

        return rate
    most = local.model.config.max_len
    lines = [local.tokenizer.encode(line).ids[:most] for line in text.splitlines() if line.strip()]
    require(bool(lines), "text", text, "a line that is not empty")
    ids = [torch.tensor([line]) for line in lines[:MOST_LINES]]
    vectors = [_vector(local.model.encode(line)) for line in ids]

    def rate_lines(decoder: Decoder) -> dict:
        own = [_vector(decoder(line)) for line in ids]
        cosines = [float(a @ b) for a, b in zip(own, vectors, strict=True)]
        return with_ends("value", bootstrap(cosines))

    return rate_lines


@torch.no_grad()
def _vector(hidden: Tensor) -> Tensor:
    return mean_pool(hidden, torch.ones(hidden.shape[:2]))[0]


def windows(ids: list[int], config: ModelConfig) -> Tensor:
    """A text's ids as windows (N,T+1), spread evenly over it; a short text is one window."""
    require(len(ids) >= 3, "text", len(ids), "at least three tokens")
    length = min(MOST_TOKENS, config.max_len - 1, len(ids) - 1) + 1
    starts = np.linspace(0, len(ids) - length, min(MOST_WINDOWS, len(ids) // length)).astype(int)
    return torch.tensor([ids[start : start + length] for start in starts])


def window_bits(model: Callable[[Tensor], Tensor], ids: Tensor) -> np.ndarray:
    """Bits a token of each window's second half (N,)."""
    return (half_window_nats(model, ids).mean(1) / np.log(2)).double().numpy()


# --- As text ---------------------------------------------------------------------------------

HEADS = {PREFILL: "prefill ms", DECODE: "tokens/s"}
NOTE = "One thread, a prompt of {n} tokens{after}. In brackets what was predicted before, with its "
NOTE += "90 % interval, by constants fitted to random models on this machine."
BUSY = "Other processes used {cores} cores meanwhile: these times are too long, measure again."
BITS = "bits: a token of the text; added: over fp32, with its 95 % interval, windows paired."
COSINE = "cosine: with fp32's vectors, mean over the text's lines, with its 95 % interval."


def report(result: Mapping) -> str:
    """The measurement as lines of text."""
    phases = [phase for phase in HEADS if phase in result["rows"][0]]
    rated = result["rows"][0]["quality"] is not None
    quality = (["bits", "added"] if result["causal"] else ["cosine"]) if rated else []
    table = [["format", "MB", *(HEADS[phase] for phase in phases), *quality]]
    for row in result["rows"]:
        cells = [row["format"], significant(row["nbytes"] / 1e6)]
        cells += [_time(phase, row[phase]) for phase in phases]
        table.append(cells + (_quality(row["quality"]) if rated else []))
    lines = [f"{result['name']} on {result['machine']}"]
    lines += align(table, right=[False, *[True] * (len(table[0]) - 1)])
    after = ", then one token" if result["causal"] else ""
    notes = [NOTE.format(n=result["n_tokens"], after=after)]
    if result["busy_cores"] > BUSY_CORES:
        notes.insert(0, BUSY.format(cores=significant(result["busy_cores"], 2)))
    notes += [BITS if result["causal"] else COSINE] if rated else []
    return "\n".join([*lines, *(line for note in notes for line in wrap(note, WIDTH))])


def _time(phase: str, entry: Mapping) -> str:
    values = [entry[key] for key in ("ms", "predicted", "low", "high")]
    if phase == DECODE:
        own, predicted, high, low = (1e3 / value for value in values)
        values = [own, predicted, low, high]
    ms, predicted, low, high = map(significant, values)
    return f"{ms} ({predicted}: {low} to {high})"


def _quality(entry: Mapping) -> list[str]:
    value, low, high = (significant(entry[key]) for key in ("value", "low", "high"))
    interval = f"{value} ({low} to {high})"
    return [significant(entry["bits"], 4), interval] if "bits" in entry else [interval]
