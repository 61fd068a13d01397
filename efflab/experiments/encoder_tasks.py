"""Three tasks on docstrings, and two ways to solve each with a pretrained encoder.

The docstrings are those of the standard library's functions. The tasks: which of 64 modules one
comes from ("package"), whether its function returns a value, and whether it takes an argument
besides self, where `*args` and what can be given by keyword alone do not count. A head is a
logistic regression on the frozen sentence embedding; fine-tuning trains every weight.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from efflab import data, pretrained, train
from efflab.base.cache import get_or_make

EARLIER_PACKAGES = "asyncio email http importlib logging multiprocessing unittest xml".split()
PER_PACKAGE, N_MODULES, MAX_TOKENS = 120, 64, 32
TASKS = ("package", "returns", "takes")
BATCH_SIZE, LR = 16, 1e-4


@dataclass(frozen=True)
class Docstrings:
    """Texts (first paragraphs), and labels {task: (N,) int64}."""

    texts: list[str]
    labels: dict[str, np.ndarray]


def _functions(tree: ast.Module) -> Iterator[tuple[str, bool, bool]]:
    """(docstring's first paragraph, returns a value, takes an argument) of each function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            text = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
            inner = ast.walk(node)
            returns = any(isinstance(n, ast.Return) and n.value is not None for n in inner)
            takes = any(a.arg not in ("self", "cls") for a in node.args.args)
            if len(text) >= 20:
                yield text, returns, takes


@lru_cache(maxsize=1)
def docstrings() -> Docstrings:
    """All documented functions of the 64 modules that have the most; no duplicates.

    None is of `EARLIER_PACKAGES`, or has a text that the rule's pilot saw.
    """
    sources = (Path(__file__), Path(data.__file__))
    rows = get_or_make(data.CACHE, "docstrings", sources, _pick_docstrings)
    texts, *columns = zip(*rows, strict=True)
    return Docstrings(list(texts), dict(zip(TASKS, map(np.array, columns), strict=True)))


def _pick_docstrings() -> list[tuple[str, int, int, int]]:
    """(text, label of its module, returns, takes) of every function, large modules first."""
    seen, modules = _earlier_texts(), defaultdict(list)
    for path, source in sorted(data.stdlib_files("train")):
        module = path.split("/")[0]
        for text, *answers in _functions(ast.parse(source)):
            if module not in EARLIER_PACKAGES and text not in seen:
                seen.add(text)
                modules[module].append((text, *map(int, answers)))
    most = sorted(modules, key=lambda module: (-len(modules[module]), module))[:N_MODULES]
    return [(text, i, *answers) for i, name in enumerate(most) for text, *answers in modules[name]]


def _earlier_texts() -> set[str]:
    """The 120 documented functions of each of eight packages on which the rule was piloted."""
    by_package: dict[str, dict[str, None]] = {name: {} for name in EARLIER_PACKAGES}
    for path, source in sorted(data.stdlib_files("train")):
        if (package := path.split("/")[0]) in by_package:
            found = _functions(ast.parse(source))
            by_package[package] |= dict.fromkeys(text for text, *_ in found)  # a set has no order
    seen: set[str] = set()
    for texts in by_package.values():
        new = [text for text in texts if text not in seen]
        order = np.random.default_rng(0).permutation(len(new))[:PER_PACKAGE]
        seen |= {new[i] for i in order}
    return seen


def token_ids(tokenizer, texts: list[str]) -> Tensor:
    """(N, 32) token ids, cut to 32 tokens and padded with 0."""
    ids = tokenizer(texts, truncation=True, max_length=MAX_TOKENS, padding="max_length")
    return torch.tensor(ids["input_ids"])


def sentences(encoder: nn.Module, ids: Tensor) -> Tensor:
    """Sentence embeddings of padded ids (B,T): (B,C), with gradients where they are on."""
    ids = ids[:, : int((ids != 0).sum(1).max())]  # drop columns that are all padding
    return pretrained.mean_pool(encoder.encode(ids, ids != 0), ids != 0)


@torch.no_grad()
def embed(encoder: nn.Module, ids: Tensor, batch_size: int = 32) -> np.ndarray:
    """Sentence embeddings (N,C) of token ids (N,T), shortest first so that little is padding."""
    order = (ids != 0).sum(1).argsort()
    parts = [sentences(encoder, ids[i]) for i in order.split(batch_size)]
    return torch.cat(parts)[order.argsort()].numpy()


def head_hits(embeddings: np.ndarray, y: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Whether a head fitted on the other texts is right on each of `test` (N,), a mask."""
    from sklearn.linear_model import LogisticRegression

    head = LogisticRegression(C=10, max_iter=500).fit(embeddings[~test], y[~test])
    return head.predict(embeddings[test]) == y[test]


class Classifier(nn.Module):
    """An encoder and a linear head, trained together."""

    def __init__(self, encoder: nn.Module, n_classes: int):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.config.d_model, n_classes)
        nn.init.zeros_(self.head.weight)

    def forward(self, ids: Tensor) -> Tensor:
        # embeddings have length 1; scaled up, the head can learn with the encoder's small rate
        return self.head(20 * sentences(self.encoder, ids))


def fine_tuned_hits(
    encoder, ids: Tensor, y: np.ndarray, test: np.ndarray, seed: int, n_steps: int
) -> np.ndarray:
    """Whether a copy of the encoder, trained with its head on the others, is right on `test`."""
    torch.manual_seed(seed)
    model = Classifier(deepcopy(encoder), int(y.max()) + 1)
    train_ids, train_y = ids[~test], torch.from_numpy(y[~test])

    def batch(step):
        rng = np.random.default_rng(seed * 10**6 + step)
        rows = rng.choice(len(train_y), BATCH_SIZE, replace=False)
        return train_ids[rows], train_y[rows]

    groups = [
        {"params": model.encoder.parameters(), "lr": LR},
        {"params": model.head.parameters(), "lr": 30 * LR},
    ]
    optimizers = [torch.optim.AdamW(groups, weight_decay=0.01)]
    train.fit(model, batch, n_steps, optimizers=optimizers, loss_fn=train.classification_loss)
    with torch.no_grad():
        logits = torch.cat([model(part) for part in ids[test].split(32)])
    return logits.argmax(1).numpy() == y[test]
