"""Block-sparse attention against dense attention and against `transformers`' BigBird."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from efflab.bench import peak_bytes
from efflab.structure import bigbird
from efflab.structure.bigbird import (
    bigbird_layout,
    block_sparse_attention,
    hops,
    pieces,
    token_mask,
)


def heads(B, H, T, D, **options):
    rng = torch.Generator().manual_seed(0)
    return [torch.randn(B, H, T, D, generator=rng, **options) for _ in range(3)]


def dense(q, k, v, mask):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return scores.masked_fill(~mask, -torch.inf).softmax(-1) @ v


def test_layout_has_its_three_parts():
    n = 40
    layout = bigbird_layout(n, n_global=2, n_window=3, n_random=4)
    at = torch.arange(n)
    near = (at[:, None] - at).abs() <= 1
    assert layout[:2].all()
    assert layout[:, :2].all()
    assert layout[near].all()
    rest = layout & ~near
    rest[:2] = rest[:, :2] = False
    assert rest.sum(1).tolist() == [0, 0] + [4] * (n - 2)


@given(
    n_blocks=st.integers(1, 12),
    n_global=st.integers(0, 14),
    half=st.integers(0, 8),
    n_random=st.integers(0, 14),
)
def test_layout_never_exceeds_what_there_is(n_blocks, n_global, half, n_random):
    layout = bigbird_layout(n_blocks, n_global=n_global, n_window=2 * half + 1, n_random=n_random)
    window_and_global = bigbird_layout(
        n_blocks, n_global=n_global, n_window=2 * half + 1, n_random=0
    )
    expected = (window_and_global.sum(1) + n_random).clamp(max=n_blocks)
    assert torch.equal(layout.sum(1), expected)


def test_layout_is_decided_by_its_seed():
    def make(seed):
        return bigbird_layout(32, n_global=1, n_window=3, n_random=3, seed=seed)

    assert torch.equal(make(5), make(5))
    assert not torch.equal(make(5), make(6))
    assert torch.equal(make(0), bigbird_layout(32, n_global=1, n_window=3, n_random=3))


@pytest.mark.parametrize("block_bytes", [2**15, 2**16, 2**23])
def test_no_call_gathers_more_than_its_share_unless_one_row_does(block_bytes):
    """Keys and values of a row's blocks; together the calls answer each query once."""
    layout = bigbird_layout(24, n_global=1, n_window=3, n_random=2)
    made = list(pieces(layout, 3, block_bytes))
    answered = torch.cat([piece.queries for piece in made])
    assert answered.sort().values.tolist() == list(range(3 * 24))
    lists = [p for p in made if not isinstance(p.keys, slice)]
    gathered = [(p.n_rows, 2 * len(p.keys) * block_bytes) for p in lists]
    assert all(size <= bigbird.GATHERED_BYTES or rows == 1 for rows, size in gathered)
    whole = [size / rows * (rows + 1) for rows, size in gathered]  # with one more row
    assert max(whole) > bigbird.GATHERED_BYTES


@settings(max_examples=25, deadline=None)
@given(data=st.data(), n_blocks=st.integers(1, 40), block_size=st.integers(1, 6))
def test_equals_dense_attention_for_any_layout(data, n_blocks, block_size):
    seed = data.draw(st.integers(0, 1000))
    density = data.draw(st.floats(0, 1))
    rng = torch.Generator().manual_seed(seed)
    layout = torch.rand(n_blocks, n_blocks, generator=rng) < density
    layout |= torch.eye(n_blocks, dtype=torch.bool)
    q, k, v = heads(2, 2, n_blocks * block_size, 4)
    y = block_sparse_attention(q, k, v, layout, block_size)
    torch.testing.assert_close(y, dense(q, k, v, token_mask(layout, block_size)))


def test_gradients_equal_dense_attention():
    layout = bigbird_layout(40, n_global=2, n_window=3, n_random=3)
    ours = [x.requires_grad_() for x in heads(1, 2, 320, 4, dtype=torch.float64)]
    theirs = [x.detach().clone().requires_grad_() for x in ours]
    weight = torch.randn(1, 2, 320, 4, dtype=torch.float64)
    (block_sparse_attention(*ours, layout, 8) * weight).sum().backward()
    (dense(*theirs, token_mask(layout, 8)) * weight).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_neither_threads_nor_pieces_change_a_value(monkeypatch):
    layout = bigbird_layout(24, n_global=2, n_window=3, n_random=3)
    inputs = [x.requires_grad_() for x in heads(2, 3, 24 * 16, 8)]

    def results(n_threads, gathered_bytes):
        before = torch.get_num_threads()
        torch.set_num_threads(n_threads)
        monkeypatch.setattr(bigbird, "GATHERED_BYTES", gathered_bytes)
        try:
            y = block_sparse_attention(*inputs, layout, 16)
            return y, *torch.autograd.grad(y.square().sum(), inputs)
        finally:
            torch.set_num_threads(before)

    alone = results(1, 2**40)
    for other in (results(1, 1), results(2, 2**15)):
        for a, b in zip(alone, other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_what_was_gathered_is_not_kept_for_the_backward_pass():
    layout = bigbird_layout(32, n_global=1, n_window=5, n_random=5)
    inputs = [x.requires_grad_() for x in heads(1, 2, 32 * 16, 8)]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.nbytes) or x, id):
        block_sparse_attention(*inputs, layout, 16)
    assert sum(kept) == sum(x.nbytes for x in inputs)  # q, k and v, not 11 times k and v


def test_equals_the_block_sparse_layer_of_transformers():
    """Its pattern: first and last block global, three in the window, random ones by head.

    Only in training: in evaluation its random blocks all become block 0, counted several times.
    """
    from transformers import BigBirdConfig
    from transformers.models.big_bird.modeling_big_bird import (
        BigBirdBlockSparseAttention,
        BigBirdModel,
    )

    n_head, D, block_size, n_blocks, n_random, seed = 2, 8, 4, 16, 2, 3
    T = n_blocks * block_size
    config = BigBirdConfig(
        hidden_size=n_head * D,
        num_attention_heads=n_head,
        block_size=block_size,
        num_random_blocks=n_random,
        max_position_embeddings=T,
    )
    layer = BigBirdBlockSparseAttention(config, seed=seed).train()
    x = torch.randn(2, T, n_head * D, requires_grad=True)
    masks = BigBirdModel.create_masks_for_block_sparse_attn(torch.ones(2, T), block_size)
    blocked, band, from_mask, to_mask = masks
    expected, _ = layer(x, band, from_mask, to_mask, blocked, blocked)

    np.random.seed(seed)  # the layer draws its random blocks after just this
    plan = layer._get_rand_attn_plan(T, block_size, n_random)
    drawn = layer._bigbird_block_rand_mask_with_head(T, T, block_size, block_size, n_head, *plan)
    at = torch.arange(n_blocks)
    outputs = []
    split = [
        p(x).view(2, T, n_head, D).transpose(1, 2) for p in (layer.query, layer.key, layer.value)
    ]
    for head in range(n_head):
        layout = (at[:, None] - at).abs() <= 1
        layout[[0, -1]] = layout[:, [0, -1]] = True
        assert not layout[1:-1].gather(1, torch.tensor(drawn[head]).long()).any()
        layout[1:-1] = layout[1:-1].scatter(1, torch.tensor(drawn[head]).long(), True)
        one = (t[:, head : head + 1] for t in split)
        outputs.append(block_sparse_attention(*one, layout, block_size))
    y = torch.cat(outputs, 1).transpose(1, 2).flatten(2)
    torch.testing.assert_close(y, expected.view_as(y))

    weight = torch.randn_like(y)
    ours = torch.autograd.grad((y * weight).sum(), [x, *layer.parameters()])
    theirs = torch.autograd.grad((expected.view_as(y) * weight).sum(), [x, *layer.parameters()])
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backward", [False, True])
def test_memory_grows_with_the_length_and_not_with_its_square(backward):
    def peak(n_blocks):
        layout = bigbird_layout(n_blocks, n_global=1, n_window=3, n_random=2)
        q, k, v = (x.requires_grad_(backward) for x in heads(1, 4, n_blocks * 64, 32))

        def run():
            y = block_sparse_attention(q, k, v, layout, 64)
            if backward:
                y.sum().backward()

        return peak_bytes(run)

    assert peak(128) <= 4**1.15 * peak(32)


def test_hops():
    ring = bigbird_layout(9, n_global=0, n_window=3, n_random=0)
    at = torch.arange(9)
    assert torch.equal(hops(ring), (at[:, None] - at).abs())
    assert hops(bigbird_layout(9, n_global=1, n_window=3, n_random=0)).max() == 2
    assert hops(bigbird_layout(3, n_global=0, n_window=1, n_random=0)).tolist() == [
        [0, -1, -1],
        [-1, 0, -1],
        [-1, -1, 0],
    ]


@pytest.mark.parametrize(
    ("counts", "named"),
    [
        ((0, 1, 3, 1), "n_blocks"),
        ((8, -1, 3, 1), "n_global"),
        ((8, 1, 2, 1), "n_window"),
        ((8, 1, 3, -2), "n_random"),
        ((8, 0, 0, 0), "n_global"),
    ],
)
def test_layout_refuses_bad_counts(counts, named):
    n_blocks, n_global, n_window, n_random = counts
    with pytest.raises(ValueError, match=named):
        bigbird_layout(n_blocks, n_global=n_global, n_window=n_window, n_random=n_random)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"block_size": 3}, "q.shape"),
        ({"block_size": 4}, "layout"),
        ({"layout": torch.ones(4, 4)}, "layout"),
        ({"layout": torch.eye(4) > 2}, "empty rows"),
        ({"k": torch.zeros(1, 1, 4, 4)}, "k.shape"),
        ({"q": torch.zeros(1, 8, 4)}, "q.shape"),
    ],
)
def test_attention_refuses_bad_arguments(change, named):
    x = torch.zeros(1, 1, 8, 4)
    layout = torch.ones(4, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match=named):
        block_sparse_attention(
            **({"q": x, "k": x, "v": x, "layout": layout, "block_size": 2} | change)
        )
