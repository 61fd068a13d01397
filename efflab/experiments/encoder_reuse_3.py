"""A shared encoder's heads against encoders of their own, text by text.

Every text is a test text once, in four folds that a seed draws. A hit is kept for each text, so
that differences pair. The control is a head on an encoder whose weights are random.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import product

import numpy as np
import torch

from efflab import data, points
from efflab.bench import one_thread
from efflab.errors import require_one_of
from efflab.estimate import Estimate, bootstrap
from efflab.experiments import encoder_tasks as tasks
from efflab.experiments.record import run_cases
from efflab.experiments.registration import rules_for
from efflab.model import Transformer

NAME = "encoder-reuse-3"
SEEDS = (240, 241)
N_FOLDS, N_STEPS = 4, 500
"""Four and a half passes over the texts of three folds."""
KINDS = ("head", "tuned", "untrained")
CASES = {f"folds-{task}": (task, "tuned", "head") for task in tasks.TASKS}
CASES |= {f"untrained-{task}": (task, "tuned", "untrained") for task in tasks.TASKS}
"""Id of evidence -> task, and who may be right on more texts than whom."""


def fold_hits(n_texts: int, seed: int, hits: Callable[[np.ndarray], np.ndarray]) -> str:
    """A 1 for each text that `hits(test)` finds right, else a 0, over the folds of a seed."""
    order, right = np.random.default_rng(seed).permutation(n_texts), np.zeros(n_texts, dtype=bool)
    for fold in np.array_split(order, N_FOLDS):
        test = np.isin(np.arange(n_texts), fold)
        right[test] = hits(test)
    return "".join(map(str, right.astype(int)))


def run_one(task: str, kind: str, seed: int) -> dict:
    """Which texts a head, a fine-tuned encoder, or a head on an untrained encoder gets right."""
    require_one_of("task", task, tasks.TASKS)
    require_one_of("kind", kind, KINDS)
    encoder, tokenizer = points.encoder()
    docs = tasks.docstrings()
    ids, y = tasks.token_ids(tokenizer, docs.texts), docs.labels[task]
    if kind == "tuned":
        options = dict(seed=seed, n_steps=N_STEPS)
        hits = partial(tasks.fine_tuned_hits, encoder, ids, y, **options)
    else:
        torch.manual_seed(seed)
        body = encoder if kind == "head" else Transformer(encoder.config).eval()
        hits = partial(tasks.head_hits, tasks.embed(body, ids), y)
    return dict(hits=fold_hits(len(y), seed, hits))


def accuracy(hits: str) -> float:
    """Per cent of the texts that are right.

    >>> accuracy("1101")
    75.0
    """
    return 100 * hits.count("1") / len(hits)


def cases(runs: Iterable[Mapping]) -> dict[str, Estimate]:
    """`CASES` in points of accuracy; seeds are averaged for each text, and texts resampled."""
    rows = {(r["task"], r["kind"], r["seed"]): np.array(list(r["hits"]), dtype=int) for r in runs}
    seeds = sorted({seed for *_, seed in rows})
    return {
        key: bootstrap(
            100 * np.mean([rows[task, more, s] - rows[task, less, s] for s in seeds], axis=0)
        )
        for key, (task, more, less) in CASES.items()
    }


@one_thread()
def run(*, fresh: bool = False) -> dict:
    """Every task and kind with every seed; recorded as data/experiments/encoder-reuse-3."""
    each = [dict(task=t, kind=k, seed=s) for s, t, k in product(SEEDS, tasks.TASKS, KINDS)]
    own = dict(n_folds=N_FOLDS, batch_size=tasks.BATCH_SIZE, max_tokens=tasks.MAX_TOKENS)
    n_texts = len(tasks.docstrings().texts)
    own |= dict(n_steps=N_STEPS, n_modules=tasks.N_MODULES, n_texts=n_texts)
    options = dict(models={"MiniLM-L6": data.MINILM_SHA256}, rules=rules_for(NAME))
    options |= dict(versions_of=("transformers", "scikit-learn"), any_machine=True)
    return run_cases(NAME, each, run_one, settings=own, fresh=fresh, **options)
