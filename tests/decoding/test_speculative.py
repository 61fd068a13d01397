"""Speculative decoding says what the target alone would say: exactly, or in distribution."""

from collections import Counter
from dataclasses import replace
from itertools import product

import pytest
import torch
from scipy.stats import chisquare

from efflab.config import Attention, ModelConfig
from efflab.decoding import speculative
from efflab.model import Transformer, probabilities
from efflab.pretrained import load_stdlib_gpt

TINY = ModelConfig(1, 1, 8, 8, 3, 12, causal=True, tied=False)
SMALL = ModelConfig(2, 4, 32, 64, 50, 64, causal=True, tied=False)
LEAST_P = 1e-3


def make(config, seed, scale=8.0):
    """A model that has opinions: its output's weights are large."""
    torch.manual_seed(seed)
    model = Transformer(config).eval()
    model.embedding.head.weight.data *= scale
    return model


@pytest.mark.parametrize("n_draft", [1, 3, 8])
@pytest.mark.parametrize("draft_seed", [0, 1])
def test_greedy_text_is_the_targets_own(n_draft, draft_seed):
    target, draft = make(SMALL, 0), make(SMALL, draft_seed)
    ids = torch.arange(5)[None]
    text, n_accepted = speculative.generate(target, draft, ids, 40, n_draft=n_draft, temperature=0)
    assert torch.equal(text, target.generate(ids, 40, temperature=0))
    same = draft_seed == 0
    assert (n_accepted == 40 - -(-40 // (n_draft + 1))) == same  # a round's last is the target's


def test_windows_are_taken_back_too():
    config = replace(SMALL, attention=Attention(windows=(4, None)), positions="rotary")
    target, draft = make(config, 0), make(replace(config, n_layer=1), 1)
    ids = torch.arange(9)[None]
    text, _ = speculative.generate(target, draft, ids, 50, n_draft=3, temperature=0)
    assert torch.equal(text, target.generate(ids, 50, temperature=0, cache=False))


def test_the_last_token_needs_no_draft():
    target, ids = make(SMALL, 0), torch.arange(5)[None]
    text, n_accepted = speculative.generate(target, make(SMALL, 1), ids, 1, temperature=0)
    assert torch.equal(text, target.generate(ids, 1, temperature=0))
    assert n_accepted == 0


def test_stdlib_gpt_drafts_for_itself():
    model, ids = load_stdlib_gpt(), torch.arange(20)[None]
    text, n_accepted = speculative.generate(model, model, ids, 20, n_draft=4, temperature=0)
    assert torch.equal(text, model.generate(ids, 20, temperature=0))
    assert n_accepted == 16


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampled_text_is_distributed_as_the_targets(temperature):
    target, draft = make(TINY, 2), make(TINY, 3)
    ids, n, n_draws = torch.tensor([[0, 1]]), 3, 2000
    draws, n_accepted = Counter(), 0
    for seed in range(n_draws):
        text, good = speculative.generate(
            target, draft, ids, n, n_draft=2, temperature=temperature, seed=seed
        )
        draws[tuple(text[0, 2:].tolist())] += 1
        n_accepted += good
    expected = {}
    for new in product(range(3), repeat=n):
        whole = torch.cat([ids, torch.tensor([new])], dim=1)
        p = probabilities(target(whole)[0], temperature)[1:-1]
        expected[new] = n_draws * p[torch.arange(n), torch.tensor(new)].prod().item()
    cells = sorted(expected, key=expected.get)
    rare = [new for new in cells if expected[new] < 5]
    groups = [rare] * bool(rare) + [[new] for new in cells if new not in rare]
    seen = [sum(draws[new] for new in group) for group in groups]
    wanted = [sum(expected[new] for new in group) for group in groups]
    assert sum(wanted) == pytest.approx(n_draws, rel=1e-5)
    wanted = [n_draws * n / sum(wanted) for n in wanted]
    assert len(groups) > 8
    assert 0.2 < n_accepted / (n_draws * n) < 0.66  # both outcomes of the test were drawn
    assert chisquare(seen, wanted).pvalue > LEAST_P


def frequencies(accept, n_draws=20_000):
    """How often each first token comes out where one is drafted."""
    p = torch.tensor([[0.5, 0.3, 0.2, 0.0], [0.25, 0.25, 0.25, 0.25]])
    q = torch.tensor([[0.1, 0.3, 0.3, 0.3]])
    rng, counts = torch.Generator().manual_seed(0), torch.zeros(4)
    for draft in torch.multinomial(q, n_draws, replacement=True, generator=rng)[0]:
        n_good, last = accept(p, q, draft[None], rng)
        counts[draft if n_good else last] += 1
    wanted = p[0, :3].double() / p[0, :3].double().sum()
    return chisquare(counts[:3], counts[:3].sum().item() * wanted).pvalue, counts[3]


def test_the_rule_draws_from_the_target_and_two_near_it_do_not():
    def always(p, q, drafts, rng):
        return 1, drafts[-1]

    def from_all(p, q, drafts, rng):
        """The usual mistake: what replaces a draft is drawn from p, not from what q left."""
        n_good, last = speculative.accept(p, q, drafts, rng)
        return n_good, last if n_good else torch.multinomial(p[0], 1, generator=rng)

    p_value, n_impossible = frequencies(speculative.accept)
    assert p_value > LEAST_P
    assert n_impossible == 0
    for wrong in (always, from_all):
        assert frequencies(wrong)[0] < 1e-6


def test_where_rounding_leaves_nothing_the_target_is_drawn_from():
    p, q = torch.tensor([[0.5, 0.4]] * 2), torch.tensor([[0.5, 0.5]])
    drafts, firsts = torch.tensor([1]), Counter()
    for seed in range(200):
        n_good, last = speculative.accept(p, q, drafts, torch.Generator().manual_seed(seed))
        firsts[n_good, last.item()] += n_good == 0
    assert all(firsts[0, token] > 0 for token in (0, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(ids=torch.ones(2, 3, dtype=torch.long)), r"ids.shape=\(2, 3\): expected one row"),
        (dict(n_new=62), "n_new=62: expected up to max_len=64 tokens"),
        (dict(draft=make(TINY, 0)), "draft=3: expected the target's vocabulary of 50"),
        (dict(n_draft=0), "n_draft=0: expected an int of at least 1"),
        (dict(temperature=-1.0), "temperature=-1.0: expected"),
    ],
)
def test_bad_arguments_are_named(options, message):
    arguments = dict(target=make(SMALL, 0), draft=make(SMALL, 1), n_new=4)
    arguments |= dict(ids=torch.ones(1, 3, dtype=torch.long)) | options
    with pytest.raises(ValueError, match=message):
        speculative.generate(**arguments)
