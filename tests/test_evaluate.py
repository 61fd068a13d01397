"""Quality on models and vectors whose figures are known beforehand."""

import numpy as np
import pytest
import torch
from torch import nn

from efflab import data, evaluate
from efflab.config import ModelConfig


class Uniform(nn.Module):
    """Every one of 2,048 tokens as likely as any other: 11 bits each; or one likelier."""

    config = ModelConfig(1, 1, 8, 8, 2048, 32, causal=True)

    def __init__(self, likely: int | None = None):
        super().__init__()
        self.likely, self.sizes = likely, []

    def forward(self, ids):
        self.sizes.append(tuple(ids.shape))
        logits = torch.zeros(*ids.shape, 2048)
        if self.likely is not None:
            logits[..., self.likely] = 5.0
        return logits


def test_tokens_bytes_are_those_of_the_source():
    text = "def größe(x):\n    return x ** 2  # a square\n"
    ids = data.tokenizer().encode(text).ids
    assert evaluate.token_bytes()[ids].sum() == len(text.encode())
    assert evaluate.token_bytes()[0] == 0  # the file marker


def test_windows_overlap_by_half_and_are_spread_evenly():
    tokens = data.stdlib_tokens("held-out")
    windows = evaluate.held_out_windows(None, 64)
    for i in (0, 1, 7, len(windows) - 1):
        assert np.array_equal(windows[i], tokens[32 * i : 32 * i + 65])
    assert len(tokens) - 65 <= 32 * len(windows) < len(tokens)
    few = evaluate.held_out_windows(5, 64)
    middle = (len(windows) - 1) // 2
    for i, j in ((0, 0), (2, middle), (4, len(windows) - 1)):
        assert np.array_equal(few[i], windows[j])
    assert len(few) == 5
    with pytest.raises(ValueError, match="n_windows=0"):
        evaluate.held_out_windows(0, 64)


@pytest.mark.parametrize("seq_len", [2, 3, 12, 33, 64])
def test_every_token_of_second_halves_is_scored_once(seq_len):
    tokens = data.stdlib_tokens("held-out")
    second = evaluate.held_out_windows(None, seq_len)[:, seq_len // 2 + 1 :].flatten()
    assert np.array_equal(second, tokens[seq_len // 2 + 1 :][: len(second)])


@pytest.mark.parametrize("seq_len", [None, 12])
def test_the_second_half_of_each_window_is_scored(seq_len):
    model, length = Uniform(), seq_len or 32
    bits, n_bytes = evaluate.window_bits(model, 17, seq_len=seq_len)
    assert model.sizes == [(8, length), (8, length), (1, length)]
    assert bits == pytest.approx(np.full(17, 11 * length / 2), rel=1e-5)
    scored = evaluate.held_out_windows(17, length)[:, length // 2 + 1 :]
    assert n_bytes.tolist() == evaluate.token_bytes()[scored].sum(1).tolist()


def test_a_likely_token_costs_less_and_every_other_more():
    token = int(np.bincount(evaluate.held_out_windows(20, 32)[:, 17:].flatten()).argmax())
    bits, _ = evaluate.window_bits(Uniform(token), 20)
    count = (evaluate.held_out_windows(20, 32)[:, 17:] == token).sum(1)
    whole = np.log2(2047 + np.exp(5.0))
    assert bits == pytest.approx(16 * whole - count * 5 / np.log(2), rel=1e-4)


def test_bits_per_byte_are_of_all_windows_together():
    bits, n_bytes = evaluate.window_bits(Uniform(), 9)
    found = evaluate.bits_per_byte(Uniform(), 9)
    assert found.mean == pytest.approx(bits.sum() / n_bytes.sum())
    assert found.low < found.mean < found.high


def test_ranks_count_who_scores_higher():
    documents = torch.eye(4)
    queries = torch.tensor(
        [[1.0, 0, 0, 0], [0.5, 0.4, 0.3, 0.2], [0.4, 0.3, 0.2, 0.1], [0.4, 0.3, 0.2, 0.1]]
    )
    assert evaluate.reciprocal_ranks(queries, documents) == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])
    alike = evaluate.reciprocal_ranks(torch.ones(3, 4), torch.ones(3, 4))
    assert alike.tolist() == [1 / 2] * 3, "collapsed vectors rank in the middle, not first"
    assert evaluate.retrieval_mrr(queries, documents).mean == pytest.approx(25 / 48)


def test_cosines_of_known_angles():
    a = torch.tensor([[2.0, 0.0]]).expand(21, 2)
    b = torch.stack([torch.linspace(1, 0, 21), (1 - torch.linspace(1, 0, 21) ** 2).sqrt()], 1)
    found = evaluate.cosines(a, b)
    assert found == pytest.approx({"mean": 0.5, "p5": 0.05, "min": 0.0}, abs=1e-6)


@pytest.mark.parametrize("judge", [evaluate.reciprocal_ranks, evaluate.cosines])
@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.ones(2, 3), torch.ones(3, 3), r"shape=\(3, 3\): expected \(N,C\)"),
        (torch.ones(0, 3), torch.ones(0, 3), "N at least 1"),
        (torch.ones(3), torch.ones(3), r"shape=\(3,\)"),
        (torch.ones(2, 3), torch.full((2, 3), torch.nan), "finite values only"),  # ranks first
        (torch.full((2, 3), torch.inf), torch.ones(2, 3), "finite values only"),
    ],
)
def test_vectors_that_are_no_pairs_are_refused(judge, a, b, message):
    with pytest.raises(ValueError, match=message):
        judge(a, b)


def test_bad_numbers_are_named():
    with pytest.raises(ValueError, match="seq_len=0"):
        evaluate.bits_per_byte(Uniform(), 1, seq_len=0)
