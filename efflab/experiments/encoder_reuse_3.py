"""A shared encoder's heads against encoders of their own, on texts that no earlier record has seen.

The design to come of `encoder-reuse`: as `encoder-reuse-2`, with 2.5 times the texts, from other
modules, and another control, a head on an encoder whose weights are random. On shuffled words, the
control there, a head loses next to nothing, so that it cannot show what a head would lose.
"""

from collections.abc import Iterable, Mapping
from functools import partial

import torch

from efflab import points
from efflab.bench import one_thread
from efflab.errors import require_one_of
from efflab.estimate import Estimate
from efflab.experiments import encoder_reuse_2 as earlier
from efflab.experiments import encoder_tasks as tasks
from efflab.model import Transformer

NAME = "encoder-reuse-3"
SEEDS = (240, 241)
N_STEPS = 500
"""Four and a half passes over the texts of three folds."""
KINDS = ("head", "tuned", "untrained")
CASES = {f"folds-{task}": (task, "tuned", "head") for task in tasks.TASKS}
CASES |= {f"untrained-{task}": (task, "tuned", "untrained") for task in tasks.TASKS}
"""Id of evidence -> task, and who may be right on more texts than whom."""


def run_one(task: str, kind: str, seed: int) -> dict:
    """Which texts a head, a fine-tuned encoder, or a head on an untrained encoder gets right."""
    require_one_of("task", task, tasks.TASKS)
    require_one_of("kind", kind, KINDS)
    encoder, tokenizer = points.encoder()
    docs = tasks.other_docstrings()
    ids, y = tasks.token_ids(tokenizer, docs.texts), docs.labels[task]
    if kind == "tuned":
        options = dict(seed=seed, n_steps=N_STEPS)
        hits = partial(tasks.fine_tuned_hits, encoder, ids, y, **options)
    else:
        torch.manual_seed(seed)
        body = encoder if kind == "head" else Transformer(encoder.config).eval()
        hits = partial(tasks.head_hits, tasks.embed(body, ids), y)
    return dict(hits=earlier.fold_hits(len(y), seed, hits))


def cases(runs: Iterable[Mapping]) -> dict[str, Estimate]:
    """`CASES` in points of accuracy, over texts."""
    return earlier.cases(runs, CASES)


@one_thread()
def run(*, fresh: bool = False) -> dict:
    """Every task and kind with every seed; recorded as data/experiments/encoder-reuse-3."""
    n_texts = len(tasks.other_docstrings().texts)
    own = dict(n_steps=N_STEPS, n_modules=tasks.N_MODULES, n_texts=n_texts)
    return earlier.run_tasks(NAME, run_one, SEEDS, KINDS, own, fresh=fresh)
