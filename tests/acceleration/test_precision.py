"""Our rounding against torch's casts: every 16-bit pattern, every boundary, random bits."""

import pytest
import torch

from efflab.acceleration.precision import FORMATS, TORCH_DTYPES, FloatFormat, every_value

SHORT = [name for name in TORCH_DTYPES if FORMATS[name].bits <= 16]


def n_different(a, b):
    """Values that are not the same number with the same sign, NaN apart."""
    same = ((a == b) & (a.signbit() == b.signbit())) | (a.isnan() & b.isnan())
    return int((~same).sum())


def boundaries(name):
    """fp32 numbers half way between a format's neighbours, and the next ones on either side."""
    values = every_value(name).float()
    values = values[values.isfinite()].unique().double()
    middle = ((values[1:] + values[:-1]) / 2).float()
    infinity = torch.tensor(torch.inf)
    return torch.cat([middle, middle.nextafter(infinity), middle.nextafter(-infinity)])


def random_bits(n=1_000_000):
    """fp32 numbers of random bits: all sizes, subnormals, infinities and NaN among them."""
    rng = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, (n,), generator=rng)
    edges = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, 448, 464, 65520, 3.4e38])
    return torch.cat([bits.to(torch.int32).view(torch.float32), edges, -edges])


@pytest.mark.parametrize("name", SHORT)
@pytest.mark.parametrize("source", ["bf16", "fp16"])
def test_every_16_bit_pattern_is_rounded_as_torch_rounds_it(name, source):
    x = every_value(source)
    assert len(x) == 65536
    assert n_different(FORMATS[name].cast(x), x.to(TORCH_DTYPES[name]).float()) == 0


@pytest.mark.parametrize("name", SHORT)
def test_ties_and_their_neighbours_are_rounded_as_torch_rounds_them(name):
    x = boundaries(name)
    assert n_different(FORMATS[name].cast(x), x.to(TORCH_DTYPES[name]).float()) == 0


@pytest.mark.parametrize("name", TORCH_DTYPES)
def test_random_bits_are_rounded_as_torch_rounds_them(name):
    x = random_bits()
    assert n_different(FORMATS[name].cast(x), x.to(TORCH_DTYPES[name]).float()) == 0


@pytest.mark.parametrize("name", SHORT)
def test_codes_are_torchs_bit_patterns(name):
    x = every_value(name)
    stored = x.view(torch.uint16 if FORMATS[name].bits == 16 else torch.uint8).long()
    number = ~x.float().isnan()
    assert torch.equal(FORMATS[name].encode(x.float())[number], stored[number])


def test_fp32_codes_are_its_bits():
    x = random_bits(10_000)
    x = x[~x.isnan()]
    stored = x.view(torch.int32).long() & 0xFFFFFFFF
    assert torch.equal(FORMATS["fp32"].encode(x), stored)


def test_tf32_against_its_bits():
    """Add half of the last bit kept, less one if that is even, and cut off: integers alone."""
    x = random_bits()
    x = x[x.isfinite()]
    bits = x.view(torch.int32).long() & 0xFFFFFFFF
    bits = bits + 0x0FFF + (bits >> 13 & 1) & 0xFFFFE000
    expected = bits.to(torch.uint32).view(torch.float32)
    assert n_different(FORMATS["tf32"].cast(x), expected) == 0


@pytest.mark.parametrize("name", TORCH_DTYPES)
def test_limits_are_torchs(name):
    ours, theirs = FORMATS[name], torch.finfo(TORCH_DTYPES[name])
    assert (ours.max, ours.smallest_normal, ours.epsilon) == (theirs.max, theirs.tiny, theirs.eps)
    assert ours.bits == theirs.bits
    least = torch.tensor([ours.smallest, 0.51 * ours.smallest, 0.5 * ours.smallest]).double()
    assert (ours.cast(least) > 0).tolist() == [True, True, False]


def test_what_is_too_large():
    x = torch.tensor([500.0, -500.0, torch.inf, 464.0])
    e4m3, e5m2 = FORMATS["fp8_e4m3fn"], FORMATS["fp8_e5m2"]
    assert e4m3.cast(x).tolist() == [448, -448, 448, 448]  # torch saturates
    assert e4m3.cast(x, saturate=False).isnan().tolist() == [True, True, True, False]  # OCP's other
    large = torch.tensor([6e4, 7e4, -torch.inf])
    assert e5m2.cast(large).tolist() == [57344, torch.inf, -torch.inf]
    assert e5m2.cast(large, saturate=True).tolist() == [57344, 57344, -57344]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: FloatFormat(1, 3), "exponent_bits=1"),
        (lambda: FloatFormat(9, 3), "exponent_bits=9"),
        (lambda: FloatFormat(5, 0), "mantissa_bits=0"),
        (lambda: FloatFormat(5, 24), "mantissa_bits=24"),
        (lambda: FloatFormat(5, 2, "inf"), "specials='inf'"),
        (lambda: every_value("fp32"), "name='fp32'"),
        (lambda: every_value("tf32"), "name='tf32'"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
