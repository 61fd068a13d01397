"""The cache by itself: what it keeps, what it takes back, and what it refuses."""

import pytest
import torch

from efflab.cache import Cache, LayerCache, visible_keys
from efflab.config import ModelConfig
from efflab.model import Transformer
from efflab.pretrained import load_stdlib_gpt
from efflab.structure.window import with_windows

GPT = ModelConfig(2, 4, 32, 64, 50, 16, causal=True)


def pieces(n, start=0):
    """Keys and values (1,2,n,3) that say at which position they stand."""
    keys = torch.arange(start, start + n).float()[None, None, :, None].expand(1, 2, n, 3)
    return keys, -keys


def test_a_layer_keeps_all_or_its_window():
    whole, narrow = LayerCache(), LayerCache(window=4)
    for start, n in ((0, 3), (3, 1), (4, 1), (5, 6), (11, 1)):
        for cache in (whole, narrow):
            keys, values = cache.extend(*pieces(n, start))
            assert torch.equal(values, -keys)
            first = 0 if cache is whole else max(0, start - 4)
            assert keys[0, 0, :, 0].tolist() == list(range(first, start + n))
        assert whole.n_seen == whole.n_kept == start + n
        assert narrow.n_kept == min(4, start + n)
    assert narrow.nbytes == 2 * 4 * 2 * 4 * 3


@pytest.mark.parametrize("window", [None, 4])
def test_tokens_are_taken_back(window):
    cache = LayerCache(window, n_spare=3)
    cache.extend(*pieces(10))
    cache.truncate(7)
    keys, _ = cache.extend(*pieces(2, 7))
    assert keys[0, 0, -5:, 0].tolist() == [4, 5, 6, 7, 8]
    assert cache.n_seen == 9
    with pytest.raises(ValueError, match="n_tokens=10: expected an int of at most 9"):
        cache.truncate(10)


def test_what_has_left_the_window_does_not_come_back():
    cache = LayerCache(4, n_spare=2)
    cache.extend(*pieces(10))
    with pytest.raises(ValueError, match="n_tokens=6: expected an int of at least 7"):
        cache.truncate(6)
    short = LayerCache(8)
    short.extend(*pieces(5))
    short.truncate(0)
    assert short.n_kept == short.n_seen == 0


def test_all_layers_are_cut_or_none():
    cache = Cache([None, 4], n_spare=1)
    for layer in cache.layers:
        layer.extend(*pieces(10))
    with pytest.raises(ValueError, match="n_tokens=5: expected an int of at least 8"):
        cache.truncate(5)
    assert [layer.n_seen for layer in cache.layers] == [10, 10]
    cache.truncate(9)
    assert [layer.n_seen for layer in cache.layers] == [9, 9]
    with pytest.raises(ValueError, match=r"windows=\[\]: expected one for each layer"):
        Cache([])


def test_a_token_sees_itself_and_the_past():
    assert visible_keys(2, 4).long().tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert visible_keys(2, 4, window=2).long().tolist() == [[0, 1, 1, 0], [0, 0, 1, 1]]


@pytest.mark.parametrize("batch", [1, 3])
def test_stdlib_gpt_says_the_same_with_and_without(batch):
    model = load_stdlib_gpt()
    ids = torch.randint(2048, (batch, 60), generator=torch.Generator().manual_seed(0))
    cache = model.new_cache()
    with torch.no_grad():
        parts = [model(part, cache=cache) for part in ids.split([17, 1, 1, 41], dim=1)]
        torch.testing.assert_close(torch.cat(parts, 1), model(ids), atol=1e-4, rtol=1e-4)
    for options in (dict(temperature=0), dict(top_k=5, seed=3), dict(temperature=0.7, seed=1)):
        expected = model.generate(ids, 40, cache=False, **options)
        assert torch.equal(model.generate(ids, 40, **options), expected)


def test_a_text_goes_on_where_its_cache_ends():
    torch.manual_seed(0)
    model, ids = Transformer(GPT).eval(), torch.arange(5)[None]
    cache = model.new_cache()
    text = model.generate(ids, 4, temperature=0, cache=cache)
    text = model.generate(text, 4, temperature=0, cache=cache)
    assert torch.equal(text, model.generate(ids, 8, temperature=0))
    assert cache.n_seen == 12
    with pytest.raises(ValueError, match="cache=12: expected fewer tokens seen than there are"):
        model.generate(ids, 2, cache=cache)


def test_gradients_go_through_a_cache():
    torch.manual_seed(0)
    model, ids = Transformer(GPT), torch.arange(10)[None]
    model(ids).square().sum().backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    cache = model.new_cache()
    parts = [model(part, cache=cache) for part in ids.split([6, 4], dim=1)]
    torch.cat(parts, 1).square().sum().backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], atol=1e-5, rtol=1e-4)


def too_long(model):
    return model.generate(torch.zeros(1, 10, dtype=torch.long), 7)


def past_the_end(model):
    cache = model.new_cache()
    model(torch.zeros(1, 10, dtype=torch.long), cache=cache)
    return model(torch.zeros(1, 7, dtype=torch.long), cache=cache)


def padded(model):
    ids = torch.ones(1, 4, dtype=torch.long)
    return model(ids, ids, model.new_cache())


def of_another_batch(model):
    cache = model.new_cache()
    model(torch.ones(2, 4, dtype=torch.long), cache=cache)
    return model(torch.ones(3, 1, dtype=torch.long), cache=cache)


def of_another_depth(model):
    return model(torch.ones(1, 4, dtype=torch.long), cache=Cache([None]))


def windowed(model):
    return with_windows(model, 4).generate(torch.ones(1, 4, dtype=torch.long), 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (too_long, "n_new=7: expected at most 6, up to max_len, or cache=False"),
        (past_the_end, "sequence length=17: expected at most max_len=16"),
        (padded, r"attention_mask=\(1, 4\): expected None with a cache"),
        (of_another_batch, r"keys.shape=\(3, 4, 1, 8\): expected"),
        (of_another_depth, "cache.layers=1: expected 2"),
        (windowed, "attention='SlidingAttention': expected one that takes a cache"),
    ],
)
def test_what_does_not_fit_a_cache_is_refused(call, message):
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=message):
        call(Transformer(GPT).eval())


def test_an_encoder_has_no_cache():
    with pytest.raises(ValueError, match="causal=False: expected a causal model"):
        Transformer(ModelConfig(1, 1, 4, 4, 4, 4)).new_cache()
