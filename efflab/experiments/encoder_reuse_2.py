"""A shared encoder's heads against encoders of their own, text by text.

Every text is a test text once, in four folds that a seed draws; five seeds, and four passes over
the texts for an encoder of its own. A hit is kept for each text, so that differences pair. The
control: a head on texts whose words are shuffled.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import product

import numpy as np

from efflab import data, points
from efflab.bench import one_thread
from efflab.errors import require, require_one_of
from efflab.estimate import Estimate, bootstrap
from efflab.experiments import encoder_tasks as tasks
from efflab.experiments.record import run_cases
from efflab.experiments.registration import rules_for

NAME = "encoder-reuse-2"
SEEDS = (100, 101, 102, 103, 104)
N_FOLDS, N_STEPS = 4, 180
KINDS = ("head", "tuned", "shuffled")
CASES = {f"folds-{task}": (task, "tuned", "head") for task in tasks.TASKS}
CASES["folds-shuffled"] = ("package", "head", "shuffled")
"""Id of evidence -> task, and who may be right on more texts than whom; the last is the control."""


def shuffle_words(texts: Iterable[str], seed: int) -> list[str]:
    """Each text with its words in another order."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.permutation(text.split())) for text in texts]


def fold_hits(n_texts: int, seed: int, hits: Callable[[np.ndarray], np.ndarray]) -> str:
    """A 1 for each text that `hits(test)` finds right, else a 0, over the folds of a seed."""
    order, right = np.random.default_rng(seed).permutation(n_texts), np.zeros(n_texts, dtype=bool)
    for fold in np.array_split(order, N_FOLDS):
        test = np.isin(np.arange(n_texts), fold)
        right[test] = hits(test)
    return "".join(map(str, right.astype(int)))


def run_one(task: str, kind: str, seed: int) -> dict:
    """Which texts a head, a fine-tuned encoder, or a head on shuffled words gets right."""
    require_one_of("task", task, tasks.TASKS)
    require_one_of("kind", kind, KINDS)
    encoder, tokenizer = points.encoder()
    docs = tasks.docstrings()
    y, texts = docs.labels[task], docs.texts
    if kind == "shuffled":
        texts = shuffle_words(texts, seed)
    ids = tasks.token_ids(tokenizer, texts)
    if kind == "tuned":
        options = dict(seed=seed, n_steps=N_STEPS)
        hits = partial(tasks.fine_tuned_hits, encoder, ids, y, **options)
    else:
        hits = partial(tasks.head_hits, tasks.embed(encoder, ids), y)
    return dict(hits=fold_hits(len(y), seed, hits))


def accuracy(hits: str) -> float:
    """Per cent of the texts that are right.

    >>> accuracy("1101")
    75.0
    """
    return 100 * hits.count("1") / len(hits)


def whole_seeds(runs: Iterable[Mapping], kinds: Iterable[str] = KINDS) -> list[Mapping]:
    """The runs of those seeds that have every task and each of `kinds`, while a record grows."""
    runs, each = list(runs), set(product(tasks.TASKS, kinds))
    done: dict[int, set] = {run["seed"]: set() for run in runs}
    for run in runs:
        done[run["seed"]].add((run["task"], run["kind"]))
    return [run for run in runs if done[run["seed"]] >= each]


def cases(
    runs: Iterable[Mapping], pairs: Mapping[str, tuple[str, str, str]] = CASES
) -> dict[str, Estimate]:
    """`pairs` in points of accuracy; seeds are averaged for each text, and texts resampled.

    Only `whole_seeds` count; without any a `ValueError`.
    """
    whole = whole_seeds(runs, {kind for _, *both in pairs.values() for kind in both})
    require(bool(whole), "runs", whole, "at least one seed with every task and kind")
    rows = {(r["task"], r["kind"], r["seed"]): np.array(list(r["hits"]), dtype=int) for r in whole}
    seeds = sorted({seed for *_, seed in rows})
    return {
        key: bootstrap(
            100 * np.mean([rows[task, more, s] - rows[task, less, s] for s in seeds], axis=0)
        )
        for key, (task, more, less) in pairs.items()
    }


def run_tasks(
    name: str,
    run_one: Callable[..., dict],
    seeds: Iterable[int],
    kinds: Iterable[str],
    settings: Mapping,
    *,
    fresh: bool = False,
) -> dict:
    """`run_cases` of every task and kind with every seed; `settings`: beside what all share."""
    each = [
        dict(task=task, kind=kind, seed=seed)
        for seed, task, kind in product(seeds, tasks.TASKS, kinds)
    ]
    own = dict(n_folds=N_FOLDS, batch_size=tasks.BATCH_SIZE, max_tokens=tasks.MAX_TOKENS)
    options = dict(models={"MiniLM-L6": data.MINILM_SHA256}, rules=rules_for(name))
    options |= dict(versions_of=("transformers", "scikit-learn"), any_machine=True)
    return run_cases(name, each, run_one, settings=own | settings, fresh=fresh, **options)


@one_thread()
def run(*, fresh: bool = False) -> dict:
    """Every task and kind with every seed; recorded as data/experiments/encoder-reuse-2."""
    own = dict(n_steps=N_STEPS, n_texts=len(tasks.docstrings().texts))
    return run_tasks(NAME, run_one, SEEDS, KINDS, own, fresh=fresh)
