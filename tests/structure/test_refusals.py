"""What a technique of the chapter would compute wrongly, or not at all, is refused by name."""

import pytest
import torch

from efflab.config import Attention, ModelConfig
from efflab.model import Transformer
from efflab.structure import adaptive_span, bigbird, dynamic_conv, linformer, sharing, swin, window

SIZES = 2, 2, 8, 16, 20, 16
X = torch.zeros(2, 5, 8)
LAYOUT = torch.ones(2, 2, dtype=torch.bool)


def decoder(**attention):
    return Transformer(ModelConfig(*SIZES, causal=True, attention=Attention(**attention)))


def encoder():
    return Transformer(ModelConfig(*SIZES))


def qkv(*shape, k=torch.float32):
    return torch.zeros(shape), torch.zeros(shape, dtype=k), torch.zeros(shape)


def mask(*shape):
    return torch.ones(shape, dtype=torch.bool)


CALLS = {
    "a window on capped scores": (
        lambda: window.with_windows(decoder(soft_cap=1.0), 4),
        "attention='GroupedAttention': expected the plain Attention",
    ),
    "a window on a window": (
        lambda: window.with_windows(window.with_windows(encoder(), 4), 4),
        "attention='SlidingAttention': expected the plain Attention",
    ),
    "different windows in one block": (
        lambda: sharing.share_layers(decoder(windows=(None, 4)), "attention"),
        "what='attention': expected layers whose attention has the same shapes",
    ),
    "Linformer of Linformer": (
        lambda: linformer.linformer(linformer.linformer(encoder(), 16, 4), 16, 8),
        "attention='LinformerAttention': expected the plain Attention",
    ),
    "spans for spans": (
        lambda: adaptive_span.from_attention(adaptive_span.AdaptiveSpanAttention(8, 2, 4), 4),
        "attention='AdaptiveSpanAttention': expected the plain Attention",
    ),
    "a wide mask, Linformer": (
        lambda: linformer.LinformerAttention(8, 2, 16, 4)(X, mask(2, 1, 1, 4)),
        r"mask.shape=\(2, 1, 1, 4\): expected \(2 or 1, 1, 1, 5\)",
    ),
    "a mask of one token": (
        lambda: dynamic_conv.DynamicConv(8, 2, 3)(X, mask(2, 1, 1, 1)),
        r"mask.shape=\(2, 1, 1, 1\): expected \(2 or 1, 1, 1, 5\)",
    ),
    "a mask of more texts": (
        lambda: dynamic_conv.LightweightConv(8, 2, 3)(X, mask(3, 1, 1, 5)),
        r"mask.shape=\(3, 1, 1, 5\): expected",
    ),
    "kernels of other tokens": (
        lambda: dynamic_conv.convolve(X, torch.zeros(2, 4, 2, 3), True),
        r"kernels.shape=\(2, 4, 2, 3\): expected \(2, 5\) or \(1, 1\)",
    ),
    "kernels of other heads": (
        lambda: dynamic_conv.convolve(X, torch.zeros(2, 5, 3, 3), True),
        r"kernels.shape=\(2, 5, 3, 3\): expected .*H that divides 8",
    ),
    "no token, convolution": (
        lambda: dynamic_conv.DynamicConv(8, 2, 3)(X[:, :0]),
        r"x.shape=\(2, 0, 8\): expected at least one token",
    ),
    "no token, spans": (
        lambda: adaptive_span.AdaptiveSpanAttention(8, 2, 4)(X[:, :0]),
        r"x.shape=\(2, 0, 8\): expected at least one token",
    ),
    "no text, blocks": (
        lambda: bigbird.block_sparse_attention(*qkv(0, 2, 8, 4), LAYOUT, 4),
        r"q.shape=\(0, 2, 8, 4\): expected at least one value",
    ),
    "no text, window": (
        lambda: window.sliding_window_attention(*qkv(0, 2, 200, 4), 8),
        r"q.shape=\(0, 2, 200, 4\): expected at least one value",
    ),
    "two types, blocks": (
        lambda: bigbird.block_sparse_attention(*qkv(1, 2, 8, 4, k=torch.float64), LAYOUT, 4),
        "k.dtype=torch.float64: expected q's torch.float32",
    ),
    "two types, window": (
        lambda: window.sliding_window_attention(*qkv(1, 2, 8, 4, k=torch.float64), 8),
        "k.dtype=torch.float64: expected q's torch.float32",
    ),
    "a layout of other keys": (
        lambda: bigbird.hops(mask(2, 3)),
        r"layout.shape=\(2, 3\): expected \(2, 2\)",
    ),
    "an image of a part": (
        lambda: swin.swin_counts(96, (2, 2, 6, 2), 7, 225),
        "image=225: expected a multiple of 224",
    ),
    "a negative window": (
        lambda: swin.swin_counts(96, (2, 2, 6, 2), -7, 224),
        "window_size=-7: expected an int of at least 1",
    ),
    "a part of a head": (
        lambda: swin.swin_counts(33, (2, 2, 6, 2), 7, 224),
        "channels=33: expected a multiple of 32",
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_does_not_fit_is_refused_by_name(name):
    call, message = CALLS[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_layers_of_one_window_share():
    shared = sharing.share_layers(decoder(windows=(4,)), "attention")
    assert {layer.attention.body.window for layer in shared.layers} == {4}


def test_no_image_is_no_windows():
    assert swin.WindowAttention(8, 2, 2, 1)(torch.zeros(0, 4, 4, 8)).shape == (0, 4, 4, 8)
