"""Codes against the compression chapter's, bytes by hand, and logits that stay near."""

import pytest
import torch

from efflab.compression import affine
from efflab.config import Attention, ModelConfig
from efflab.decoding.quantized_cache import Codes, QuantizedLayerCache, quantized_cache
from efflab.model import Transformer
from efflab.pretrained import load_stdlib_gpt


def heads(n_tokens, seed=0):
    return torch.randn(2, 3, n_tokens, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("dim", [2, 3])
def test_a_line_is_quantized_as_the_compression_chapter_does(bits, dim):
    # each line goes from -1 up in steps of a power of 2, which 16 bits hold exactly
    step = 2.0 ** (1 - bits)
    x = heads(4).clamp(-1, (2**bits - 1) * step - 1).transpose(dim, -1).contiguous()
    x[..., 0], x[..., 1] = -1, (2**bits - 1) * step - 1
    ours = Codes(x.transpose(dim, -1), bits, dim)
    back, lines = ours.dequantize().transpose(dim, -1), x.reshape(-1, x.shape[-1]) + 1
    theirs = affine.quantize(lines, bits, symmetric=False, axis=0).dequantize() - 1
    torch.testing.assert_close(back.reshape(lines.shape), theirs, atol=1e-6, rtol=0)
    assert ((back - x).abs() <= step / 2 + 1e-6).all()
    assert ours.nbytes == x.numel() * bits // 8 + 2 * 2 * len(lines)


def test_any_value_is_at_most_half_a_step_off():
    x = heads(4)
    for bits, dim in ((2, 2), (4, 3), (8, 2)):
        step = (x.amax(dim, keepdim=True) - x.amin(dim, keepdim=True)) / (2**bits - 1)
        # scale and least value are kept in 16 bits
        assert ((Codes(x, bits, dim).dequantize() - x).abs() <= 0.5 * step + 4e-3).all()


def test_a_constant_line_stays_as_it_is():
    x = torch.full((1, 1, 4, 8), 0.5)
    assert torch.equal(Codes(x, 4, 3).dequantize(), x)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_values_come_back_in_the_models_type(dtype):
    model = Transformer(ModelConfig(2, 2, 16, 16, 20, 16, causal=True)).eval().to(dtype)
    cache, ids = quantized_cache(model, 8, 4), torch.arange(12)[None]
    logits = torch.cat([model(part, cache=cache) for part in ids.split([9, 1, 2], dim=1)], dim=1)
    assert logits.dtype == dtype
    torch.testing.assert_close(logits, model(ids), atol=0.03, rtol=0.03)


def test_whole_groups_become_codes_and_the_rest_stays_exact():
    cache, keys, values = QuantizedLayerCache(bits=8, group_size=4), heads(11), heads(11, 1)
    for t in range(11):
        got = cache.extend(keys[:, :, t : t + 1], values[:, :, t : t + 1])
        for mine, exact in zip(got, (keys, values), strict=True):
            assert mine.shape[2] == t + 1
            torch.testing.assert_close(mine, exact[:, :, : t + 1], atol=0.05, rtol=0)
            start = t // 4 * 4
            assert torch.equal(mine[:, :, start:], exact[:, :, start : t + 1])
    by_channel, by_token = 2 * 3 * 8 * 2 * 2, 2 * 3 * 4 * 2 * 2  # scale and least value, 16 bits
    group = 2 * (2 * 3 * 4 * 8) + by_channel + by_token
    assert cache.nbytes == 2 * group + 2 * (2 * 3 * 3 * 8 * 4)
    assert (cache.n_seen, cache.n_kept, len(cache.groups)) == (11, 3, 2)
    cache.truncate(9)
    with pytest.raises(ValueError, match="n_tokens=7: expected an int of at least 8"):
        cache.truncate(7)


def test_one_pass_stores_what_single_tokens_do():
    whole, single = (QuantizedLayerCache(4, 4) for _ in range(2))
    whole.extend(heads(10), heads(10, 1))
    for t in range(10):
        single.extend(heads(10)[:, :, t : t + 1], heads(10, 1)[:, :, t : t + 1])
    for mine, other in zip(whole.groups, single.groups, strict=True):
        for a, b in zip(mine, other, strict=True):
            assert torch.equal(a.dequantize(), b.dequantize())


def test_stdlib_gpt_says_nearly_the_same_with_fewer_bytes():
    model, gaps, sizes = load_stdlib_gpt(), [], []
    ids = torch.randint(2048, (1, 200), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = model(ids)[:, 160:].log_softmax(-1)
        for bits in (8, 4, 2):
            cache = quantized_cache(model, bits, group_size=32)
            model(ids[:, :160], cache=cache)
            parts = [model(token, cache=cache) for token in ids[:, 160:].split(1, 1)]
            other = torch.cat(parts, 1).log_softmax(-1)
            gaps.append((exact.exp() * (exact - other)).sum(-1).mean().item())
            sizes.append(cache.nbytes)
    longer = model.generate(ids, 8, temperature=0, cache=quantized_cache(model, 8))
    assert torch.equal(longer, model.generate(ids, 8, temperature=0))
    assert 0 <= gaps[0] < 1e-3 < gaps[2]
    assert gaps == sorted(gaps)
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: QuantizedLayerCache(3), "bits=3: expected one of 2, 4, 8"),
        (lambda: QuantizedLayerCache(4, 6), "group_size=6: expected a multiple of 4"),
        (lambda: Codes(1e5 * heads(4), 4, 2), "x='too large for 16 bits': expected values within"),
        (lambda: Codes(heads(4), 4, 1), "dim=1: expected one of 2, 3"),
        (
            lambda: quantized_cache(
                Transformer(
                    ModelConfig(1, 1, 4, 4, 4, 8, causal=True, attention=Attention(windows=(2,)))
                )
            ),
            r"model=\(2,\): expected a model without windows",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
