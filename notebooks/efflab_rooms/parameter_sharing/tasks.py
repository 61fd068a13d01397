"""Notebook 01's second half: one MiniLM under several heads, against one encoder a task."""

from copy import deepcopy
from functools import lru_cache

import numpy as np
import torch
from torch import nn

from efflab import bench, data, evaluate, points, pretrained
from efflab.estimate import Estimate
from efflab.experiments import encoder_reuse
from efflab.experiments.record import recorded
from efflab.model import n_parameters
from efflab_rooms.parameter_sharing import verdicts


@lru_cache(maxsize=1)
def docstring_embeddings() -> np.ndarray:
    """All tasks' docstrings through the frozen encoder, once: (960, 384)."""
    encoder, tokenizer = points.encoder()
    ids = encoder_reuse.token_ids(tokenizer, encoder_reuse.docstrings().texts)
    return encoder_reuse.embed(encoder, ids)


def quality_table() -> list[dict]:
    """Each task: chance, a head on the frozen encoder (now), a fine-tuned encoder (recorded)."""
    experiment = recorded(encoder_reuse.NAME)
    rows = []
    for task in encoder_reuse.TASKS:
        accuracy, n_weights = encoder_reuse.head_accuracy(docstring_embeddings(), task)
        tuned = [run["tuned"] for run in experiment["runs"] if run["task"] == task]
        always = encoder_reuse.majority(task)
        tuned = float(np.mean(tuned))
        rows += [
            dict(task=task, model="always the commonest", trained=0, accuracy=always),
            dict(task=task, model="head on the shared encoder", trained=n_weights,
                 accuracy=accuracy),
            dict(task=task, model="its own fine-tuned encoder", accuracy=tuned,
                 trained=n_parameters(points.encoder()[0]) + n_weights, kind="recorded"),
        ]  # fmt: skip
    return [{"kind": "measured"} | row | {"accuracy": round(row["accuracy"], 3)} for row in rows]


def retrieval(n_functions: int = 40) -> float:
    """MRR of finding each function's code by its docstring with the same frozen encoder."""
    functions = data.documented_functions()
    picked = functions[:: max(1, len(functions) // n_functions)][:n_functions]
    encoder, tokenizer = points.encoder()
    texts = [f.query for f in picked], [f.code for f in picked]
    queries, codes = (pretrained.embed(encoder, tokenizer, t, max_len=64) for t in texts)
    return evaluate.retrieval_mrr(queries, codes).mean


def reuse_measured(n_tasks: int = 3, n_classes: int = 8, repeats: int = 7) -> list[dict]:
    """Bytes held and time for one batch of texts wanted by every task, both ways."""
    encoder, tokenizer = points.encoder()
    ids = encoder_reuse.token_ids(tokenizer, encoder_reuse.docstrings().texts[:8])
    heads = [nn.Linear(encoder.config.d_model, n_classes) for _ in range(n_tasks)]
    encoders = [encoder, *(deepcopy(encoder) for _ in range(n_tasks - 1))]

    @torch.no_grad()
    def reuse():
        x = encoder_reuse.sentences(encoder, ids)
        return [head(x) for head in heads]

    @torch.no_grad()
    def separate():
        pairs = zip(encoders, heads, strict=True)
        return [head(encoder_reuse.sentences(own, ids)) for own, head in pairs]

    times = bench.interleaved({"one": reuse, "each": separate}, warmup=1, repeats=repeats)
    held = {
        name: sum(p.nbytes for m in [*group, *heads] for p in m.parameters()) / 1e6
        for name, group in (("one", [encoder]), ("each", encoders))
    }
    ms = {name: 1e3 * t.median for name, t in times.items()}
    ratio = times["each"].ratio_interval(times["one"])
    return [
        {"cost": "weights (MB)", **held, "ratio": held["each"] / held["one"], "kind": "measured"},
        {"cost": "8 texts (ms)", **ms, "ratio": ratio.mean, "interval, low": ratio.low,
         "interval, high": ratio.high, "kind": "measured"},
    ]  # fmt: skip


def reuse_evidence(quality: list[dict], reuse: list[dict]) -> list:
    """What the verdict on reuse rests on, from the two tables."""
    found = {(row["task"], row["model"]): row["accuracy"] for row in quality}
    head, own = "head on the shared encoder", "its own fine-tuned encoder"
    accuracy = {task: (found[task, head], found[task, own]) for task in encoder_reuse.TASKS}
    memory, time = reuse
    times = Estimate(time["ratio"], time["interval, low"], time["interval, high"])
    n_texts = int(encoder_reuse.docstrings().is_test.sum())
    return verdicts.reuse_evidence(accuracy, n_texts, memory["ratio"], times)
