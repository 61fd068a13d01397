"""The corpus, its split, the tasks: what they promise, whatever the Python version."""

from pathlib import Path

import numpy as np
import pytest
import torch

from efflab import data
from efflab.arguments import unchecked
from efflab.base import published
from efflab.config import ModelConfig
from efflab.evaluate import (
    bits_per_byte,
    cosines,
    held_out_windows,
    retrieval_mrr,
    token_bytes,
)
from efflab.model import Transformer


@pytest.fixture(scope="module")
def held_out():
    return dict(data.stdlib_files("held-out"))


def test_the_split_goes_by_module_name(held_out):
    train = dict(data.stdlib_files("train"))
    assert not set(train) & set(held_out)
    assert {data.owner(Path(path)) for path in held_out} == data.HELD_OUT  # on every Python version
    assert not {data.owner(Path(path)) for path in train} & data.HELD_OUT
    assert "json/decoder.py" in held_out
    assert "functools.py" in train


def test_tests_of_held_out_modules_are_held_out_too():
    assert data.owner(Path("test/test_json/test_dump.py")) == "json"
    assert data.owner(Path("test/test_heapq.py")) == "heapq"
    assert data.owner(Path("heapq.py")) == "heapq"
    assert not any("argparse" in path for path, _ in data.stdlib_files("train", tests=True))


def test_no_module_of_a_distribution_is_read(held_out):
    paths = [*held_out, *(path for path, _ in data.stdlib_files("train"))]
    assert len(paths) > 300
    assert not any("site-packages" in path or path.startswith("test/") for path in paths)


def test_tokens_are_the_text(held_out):
    tokenizer = data.tokenizer()
    assert tokenizer.get_vocab_size() == 2048
    text = held_out["textwrap.py"]
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids) == text
    assert token_bytes()[ids].sum() == len(text.encode())


def test_bytes_of_characters_outside_ascii():
    text = "naïve = '效率' # ∑"
    assert token_bytes()[data.tokenizer().encode(text).ids].sum() == len(text.encode())


def test_windows_are_the_seed_s():
    stream = np.arange(100)
    x, y = data.random_windows(stream, 4, 10, seed=3)
    assert x.shape == y.shape == (4, 10)
    assert torch.equal(x + 1, y)
    assert torch.equal(x, data.random_windows(stream, 4, 10, seed=3)[0])
    assert not torch.equal(x, data.random_windows(stream, 4, 10, seed=4)[0])


def test_documented_functions_hide_their_docstring():
    functions = data.documented_functions()
    assert len(functions) > 700
    by_name = {(f.module, f.name): f for f in functions}
    dedent = by_name["textwrap.py", "dedent"]
    assert dedent.query.startswith("Remove any common leading whitespace")
    assert "common leading whitespace" not in dedent.code
    assert dedent.code.startswith("def dedent(text):")
    assert len({f.query for f in functions}) == len(functions)


def test_digits_are_split_once():
    images, labels, test_images, test_labels = data.digits()
    assert images.shape == (1437, 8, 8)
    assert test_images.shape == (360, 8, 8)
    assert images.min() == 0
    assert images.max() == 1
    assert set(labels.tolist()) == set(test_labels.tolist()) == set(range(10))
    assert torch.equal(images, data.digits()[0])


@pytest.mark.parametrize("distance", [1, 20, 49, None])
def test_recall_asks_for_the_marked_symbol(distance):
    ids, answers = data.recall_batch(16, 50, distance, n_symbols=6, seed=1)
    assert ids.shape == (16, 50)
    is_marked = (ids >= 6) & (ids < 12)
    assert (is_marked.sum(1) == 1).all()
    assert torch.equal(ids[is_marked] - 6, answers)
    assert (ids[:, -1] == 12).all()
    assert answers.unique().numel() > 3
    back = 49 - is_marked.long().argmax(1)
    assert (back == distance).all() if distance else back.unique().numel() > 8


def test_recall_draws_every_distance():
    ids, _ = data.recall_batch(2000, 9)
    assert {8 - row.index(max(row[:-1])) for row in ids.tolist()} == set(range(1, 9))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: list(data.stdlib_files("test")),
            "split='test': expected one of 'train', 'held-out'",
        ),
        (lambda: data.random_windows(np.arange(9), 1, 9, 0), "seq_len=9: expected fewer than"),
        (lambda: data.random_windows(np.arange(9), 0, 3, 0), "batch_size=0"),
        (lambda: data.recall_batch(1, 10, 10), "distance=10"),
        (lambda: data.random_windows(np.arange(9), 1, 3, -1), "seed=-1"),
        (lambda: data.recall_batch(1, 10, 5, n_symbols=1), "n_symbols=1"),
        (lambda: data.recall_batch(0, 10, 5), "batch_size=0"),
        (lambda: data.recall_batch(1, 10, 5, seed=-1), "seed=-1"),
        (lambda: data.train_tokenizer(["a"], 256), "vocab_size=256"),
        (lambda: data.tokens_of([]), "texts=.*at least one text"),
        (lambda: held_out_windows(0, 64), "n_windows=0"),
        (lambda: held_out_windows(4, 1), "seq_len=1"),
        (lambda: held_out_windows(4, 10**9), "seq_len=1000000000"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


class Uniform(Transformer):
    """Gives every token the same probability: exactly 11 bits a token of a vocabulary of 2,048."""

    def forward(self, ids):
        return torch.zeros(*ids.shape, 2048)


def test_bits_per_byte_of_a_uniform_guess():
    model = Uniform(ModelConfig(1, 1, 8, 8, 2048, 64, causal=True))
    estimate = bits_per_byte(model, 20)
    targets = held_out_windows(20, 64)[:, 33:]
    assert estimate.mean == pytest.approx(
        11 * targets.size / token_bytes()[targets].sum(), rel=1e-6
    )
    assert estimate.low < estimate.mean < estimate.high


def test_every_held_out_token_is_scored_once():
    windows = held_out_windows(None, 64)
    scored = windows[:, 33:].ravel()
    stream = data.stdlib_tokens("held-out")
    assert np.array_equal(scored, stream[33 : 33 + len(scored)])
    assert len(stream) - len(scored) < 33 + 64


def test_retrieval_ranks():
    documents = torch.eye(4)
    queries = documents[[0, 1, 3, 2]].clone()
    queries[2, 0] = queries[2, 1] = 0.5  # documents 3, 0 and 1 come before document 2
    # and document 3 shares the ranks 2, 3 and 4 of its query with documents 0 and 1
    expected = (1 + 1 + 1 / 4 + 1 / 3) / 4
    assert retrieval_mrr(queries, documents).mean == pytest.approx(expected)


def test_cosines_summarize():
    a = torch.eye(2).repeat(10, 1)
    b = a.clone()
    b[0] = torch.tensor([0.0, 1.0])
    summary = cosines(a, b)
    assert summary["mean"] == pytest.approx(0.95)
    assert summary["min"] == 0


def test_published_rows_have_numbers_where_there_are_numbers(tmp_path, monkeypatch):
    (tmp_path / "published").mkdir()
    content = "name,n,x,missing,date\nA,3,2.5e3,,2017-06\n"
    (tmp_path / "published" / "toy.csv").write_text(content)
    monkeypatch.setattr(published, "DATA_DIR", tmp_path)
    expected = dict(name="A", n=3, x=2500.0, missing=None, date="2017-06")
    assert data.read_published("toy") == [expected]
    assert type(data.read_published("toy")[0]["n"]) is int
    with pytest.raises(ValueError, match="name='other': expected one of 'toy'"):
        data.read_published("other")


def test_half_a_tokenizer_is_refused_with_its_name_and_remedy(monkeypatch, tmp_path):
    whole, half = data.TOKENIZER_FILE.read_bytes(), tmp_path / "tokenizer.json"
    half.write_bytes(whole[: len(whole) // 2])
    monkeypatch.setattr(data, "TOKENIZER_FILE", half)
    with pytest.raises(ValueError, match=r"tokenizer\.json is damaged: .*; restore it"):
        unchecked(data.tokenizer).__wrapped__()
