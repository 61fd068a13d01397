"""What two compilers make of a block, against hand counts; our fuser, the formulas, the fit."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from efflab.acceleration import block, fusion, graph, inductor, xla
from efflab.acceleration.graph import Op
from efflab.profile import Counter

D_MODEL, SEQ_LEN, N_HEAD = 64, 32, 4


@pytest.fixture(scope="module")
def torch_block():
    """Layer, input, and the same layer written out in single operations."""
    layer, x = block.plain_layer(D_MODEL, SEQ_LEN, N_HEAD)
    weights = block.weights(layer, SEQ_LEN)
    return layer, x, lambda x: block.block(block.torch_namespace(), x, weights, N_HEAD)


@pytest.fixture(scope="module")
def jax_block(torch_block):
    """Function, input and weights for JAX."""
    layer, x, _ = torch_block
    jnp, namespace = xla.load_jax().numpy, block.jax_namespace()
    weights = {k: jnp.asarray(v.numpy()) for k, v in block.weights(layer, SEQ_LEN).items()}
    return lambda x, w: block.block(namespace, x, w, N_HEAD), jnp.asarray(x.numpy()), weights


@pytest.fixture(scope="module")
def xla_block(jax_block):
    return fusion.xla_report(*jax_block)


@pytest.fixture(scope="module")
def inductor_block(torch_block):
    return fusion.inductor_report(torch_block[2], torch_block[1])


def attention(namespace, head_dim):
    """softmax(q k^T) v in single operations."""

    def fn(q, k, v):
        return block.softmax(namespace, q @ k.swapaxes(-1, -2) * head_dim**-0.5) @ v

    return fn


@torch.no_grad()
def test_the_block_is_the_layer_in_both_frameworks(torch_block, jax_block):
    layer, x, written = torch_block
    expected = layer(x)
    torch.testing.assert_close(written(x), expected, atol=2e-6, rtol=1e-5)
    fn, *arrays = jax_block
    np.testing.assert_allclose(fn(*arrays), expected.numpy(), atol=2e-6, rtol=1e-5)
    np.testing.assert_allclose(
        xla.compile_call(fn, *arrays)(), expected.numpy(), atol=2e-6, rtol=1e-5
    )


@torch.no_grad()
def test_a_causal_block_does_not_look_ahead(torch_block):
    _, x, written = torch_block
    changed = x.clone()
    changed[:, 20] += 1
    same = (written(x) == written(changed)).all(-1)[0]
    assert same[:20].all()
    assert not same[20]


def test_xla_needs_fewer_kernels_and_bytes_than_operations(xla_block):
    # 2 norms x 11, bias and scores, mask and softmax, 6 products, GELU, biases, residuals
    assert xla_block.n_ops == 46
    assert sum(op.kind == "product" for op in xla_block.ops) == 6
    assert sum(op.kind == "reduction" for op in xla_block.ops) == 6
    assert 6 < xla_block.n_kernels < 46
    assert xla_block.bytes_after < xla_block.bytes_before < xla_block.compiler_bytes[0]


def test_sums_are_those_of_xla_itself(xla_block):
    """The compiled program's bytes are counted twice, by us and by XLA's cost analysis."""
    assert xla_block.bytes_after == pytest.approx(xla_block.compiler_bytes[1], rel=1e-3)
    assert xla_block.bytes_after == sum(kernel.bytes for kernel in xla_block.kernels)


def test_each_operation_knows_its_part(xla_block):
    parts = [op.part for op in xla_block.ops]
    order = "norm 1,qkv,scores,softmax,sum of v,output,norm 2,up,gelu,down".split(",")
    assert list(dict.fromkeys(parts)) == order
    assert parts.count("norm 1") == parts.count("norm 2") == 11
    assert parts.count("softmax") == parts.count("gelu") == 5
    assert {kernel.part for kernel in xla_block.kernels} <= set(order)


def test_xla_fuses_bias_and_gelu_into_one_loop():
    jnp, namespace = xla.load_jax().numpy, block.jax_namespace()
    report = fusion.xla_report(
        lambda x, b: block.gelu(namespace, x + b), jnp.ones((8, 16)), jnp.ones(16)
    )
    assert (report.n_ops, report.n_kernels) == (6, 1)
    # add 128 + 16 + 128, x/2, x/sqrt 2, erf, + 1: 2 x 128 each; product 3 x 128; 4 bytes a value
    assert report.bytes_before == 4 * (272 + 4 * 256 + 384)
    assert report.bytes_after == 4 * (128 + 16 + 128)
    text = xla.kernel_text(report, report.kernels[0].name)
    assert "erf" in text
    assert "metadata" not in text
    with pytest.raises(ValueError, match="name='nothing'"):
        xla.kernel_text(report, "nothing")


@pytest.mark.parametrize(("seq_len", "head_dim", "n_head"), [(4, 2, 1), (24, 8, 3)])
def test_attention_bytes_are_those_of_the_operations(seq_len, head_dim, n_head):
    q = np.ones((1, n_head, seq_len, head_dim), np.float32)
    expected = fusion.attention_bytes(seq_len, head_dim, n_head)
    report = fusion.xla_report(attention(block.jax_namespace(), head_dim), q, q + 1, q + 2)
    assert (report.n_ops, report.bytes_before) == (8, expected)
    tensors = [torch.from_numpy(q + i) for i in range(3)]
    ops = inductor.operations(attention(block.torch_namespace(), head_dim), *tensors)
    assert (len(ops), sum(op.bytes for op in ops)) == (8, expected)


def test_attention_bytes_by_hand():
    # T = 4, D = 2: 12 x 16 + 4 x 8 + 4 x 4 values of 4 bytes; softmax 4 x 16 + 32; all 32
    assert fusion.attention_bytes(4, 2) == 960
    assert fusion.attention_bytes(4, 2, fused="softmax") == 384
    assert fusion.attention_bytes(4, 2, fused="all") == 128
    assert fusion.attention_bytes(4, 2, 3, value_bytes=2) == 3 * 480
    with pytest.raises(ValueError, match="fused='flash'"):
        fusion.attention_bytes(4, 2, fused="flash")


@torch.no_grad()
def test_torch_operations_are_what_the_dispatcher_runs(torch_block):
    layer, x, written = torch_block
    with Counter() as counter:
        written(x)
    views = counter.calls["aten::_unsafe_view"] + counter.calls["aten::scalar_tensor"]
    ops = inductor.operations(written, x)
    assert len(ops) == sum(counter.calls.values()) - views == 43
    with Counter() as counter:
        layer(x)
    ops = inductor.operations(layer, x)
    assert len(ops) == sum(counter.calls.values()) == 10
    # LayerNorms' means and deviations and the scores' logarithms, which only training reads
    statistics = 4 * (2 * 2 * SEQ_LEN + N_HEAD * SEQ_LEN)
    assert sum(op.bytes for op in ops) == sum(counter.bytes.values()) - statistics


def test_inductor_fuses_what_lies_between_products(inductor_block):
    report = inductor_block
    products = [kernel for kernel in report.kernels if kernel.kind == "product"]
    assert [kernel.opcode for kernel in products] == "mm bmm bmm mm mm mm".split()
    assert report.n_kernels == 13
    assert report.bytes_after < report.bytes_before
    gelu = next(kernel for kernel in report.kernels if "erf" in kernel.ops)
    hidden = 4 * SEQ_LEN * 4 * D_MODEL  # bytes, changed in place: read and written
    assert gelu.bytes == 2 * hidden + 4 * 4 * D_MODEL
    source = inductor.cpp_source(report, gelu.name)
    assert source.count("for(") == 2
    assert ".erf()" in source
    with pytest.raises(ValueError, match="name='mm_1'"):
        inductor.cpp_source(report, "mm_1")


def test_inductor_kernels_read_what_earlier_ones_wrote(inductor_block):
    names = [kernel.name for kernel in inductor_block.kernels]
    for i, kernel in enumerate(inductor_block.kernels):
        assert all(name in names[:i] or name.startswith("arg") for name in kernel.inputs)
    assert all(
        any(k.startswith(("cpp", "mm", "bmm")) for k in kernel.inputs)
        for kernel in inductor_block.kernels[1:]
    )


def test_a_second_report_counts_the_same(torch_block, inductor_block):
    """From the cache on disk, which holds the generated code."""
    again = fusion.inductor_report(torch_block[2], torch_block[1])
    counts = (inductor_block.n_kernels, inductor_block.bytes_after)
    assert (again.n_kernels, again.bytes_after) == counts


def test_what_breaks_the_graph_is_refused():
    def breaks(x):
        torch._dynamo.graph_break()
        return (x + 1).relu()

    def two(x):
        return breaks(x * 2) + 1

    with pytest.raises(ValueError, match="one graph"):
        fusion.inductor_report(two, torch.ones(4))


def op(name, opcode, *reads):
    return Op(name, opcode, dict.fromkeys(reads, 4), 4)


def test_our_fuser_by_hand():
    ops = [op("a", "dot", "x", "w"), op("b", "add", "a", "bias"), op("c", "exp", "b")]
    ops += [op("d", "reduce", "c"), op("e", "divide", "c", "d"), op("f", "dot", "e", "v")]
    groups = [[o.name for o in group] for group in fusion.fuse(ops)]
    assert groups == [["a"], ["b", "c", "d"], ["e"], ["f"]]
    report = graph.fuse_report(ops)
    # b, c, d read a and the bias and write c and d: b never reaches memory
    assert [kernel.bytes for kernel in report.kernels] == [12, 16, 12, 12]
    assert report.bytes_before == 12 + 12 + 8 + 8 + 12 + 12
    assert report.n_ops == 6


def test_our_fuser_never_runs_before_its_inputs(xla_block):
    home = {o.name: i for i, group in enumerate(fusion.fuse(xla_block.ops)) for o in group}
    assert len(home) == xla_block.n_ops
    for operation in xla_block.ops:
        assert all(home[n] <= home[operation.name] for n in operation.reads if n in home)
    report = graph.fuse_report(xla_block.ops)
    assert report.n_kernels == 18
    assert report.bytes_after < xla_block.bytes_before


def test_kinds():
    kinds = {"dot_general": "product", "_scaled_dot_product": "product", "reduce_sum": "reduction"}
    kinds |= {
        "amax": "reduction",
        "copy": "movement",
        "add": "elementwise",
        "divide": "elementwise",
        "maximum": "elementwise",
        "reduce-precision": "elementwise",
    }
    kinds |= dict.fromkeys(("baddbmm", "mv", "addmv"), "product")
    reductions = "_softmax _log_softmax amin min argmin prod cumsum logsumexp var_mean std any all"
    kinds |= dict.fromkeys([*reductions.split(), "reduce_min", "reduce-window"], "reduction")
    kinds |= dict.fromkeys(("reverse", "dynamic-slice", "dynamic-update-slice"), "movement")
    assert {name: graph.kind(name) for name in kinds} == kinds


def test_hlo_text():
    assert xla.type_bytes("f32[2,3]{1,0}") == 24
    assert xla.type_bytes("(bf16[4]{0}, s32[], pred[7])") == 8 + 4 + 7
    text = """HloModule m
add {
  a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT c = f32[] add(%a, %b)
}
ENTRY %main (x: f32[4], y: f32[4]) -> f32[2] {
  %x = f32[4]{0} parameter(0), metadata={op_name="x"}
  %k = f32[] constant(2)
  %r = f32[4]{0} broadcast(%k), dimensions={}
  %m = f32[4]{0} multiply(%x, %r), metadata={op_name="jit(f)/part/mul"}
  %s = f32[2]{0} slice(%m), slice={[0:2]}
  %u = f32[2]{0} slice(%m), slice={[2:4]}
  ROOT %z = f32[2]{0} add(%s, %u)
}
"""
    multiply, add = xla.operations(text)
    assert (multiply.opcode, multiply.part, multiply.bytes) == ("multiply", "part", 32)
    assert (add.reads, add.bytes) == ({multiply.name: 16}, 24)  # both halves
    with pytest.raises(ValueError, match="ENTRY"):
        xla.parse("no program")


@pytest.mark.parametrize("queued", [False, True])
def test_a_fit_finds_the_constants_again(queued):
    truth = fusion.LaunchModel(overhead=2e-6, bandwidth=1e10, queued=queued)
    rows = [
        dict(n_kernels=n, bytes=n * b, seconds=truth.seconds(n, n * b))
        for n in (1, 4, 32)
        for b in (8e2, 8e4, 8e6)
    ]
    found = fusion.fit_launches(rows, queued)
    assert found.overhead == pytest.approx(2e-6)
    assert found.bandwidth == pytest.approx(1e10)
    assert found.even_bytes == pytest.approx(2e4)
    with pytest.raises(ValueError, match="rows"):
        fusion.fit_launches(rows[:1])
    for change in (dict(seconds=0.0), dict(bytes=-1), dict(n_kernels=None)):
        ((name, value),) = change.items()
        with pytest.raises(ValueError, match=rf"rows\[1\]\['{name}'\]={value}: expected a "):
            fusion.fit_launches([rows[0], rows[1] | change])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fusion.LaunchModel(-1e-6, 1e9), "overhead=-1e-06: expected a positive number"),
        (lambda: fusion.LaunchModel(1e-6, 0), "bandwidth=0"),
        (lambda: fusion.LaunchModel(1e-6, 1e9, rate=-1.0), "rate=-1.0"),
        (lambda: fusion.LaunchModel(1e-6, 1e9).seconds(-1, 8), "n_kernels=-1"),
        (lambda: fusion.attention_bytes(4, 2, value_bytes=-2), "value_bytes=-2"),
        (lambda: fusion.chain(torch.ones(3, dtype=torch.long), 2), "x=.*a tensor of floats"),
    ],
)
def test_what_no_machine_has_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_launches_that_run_ahead_hide_behind_the_work():
    beside, ahead = (fusion.LaunchModel(1e-6, 1e9, queued=queued) for queued in (False, True))
    assert beside.seconds(4, 8e3) == pytest.approx(12e-6)
    assert ahead.seconds(4, 8e3) == pytest.approx(8e-6)
    assert ahead.seconds(16, 8e3) == pytest.approx(16e-6)


def test_chain_runs_n_operations():
    x = torch.ones(5)
    torch.testing.assert_close(fusion.chain(x, 3)(), (x * 1.0001 + 1e-4) * 1.0001)
    with Counter() as counter:
        fusion.chain(x, 7)()
    assert (counter.calls["aten::mul"], counter.calls["aten::add"]) == (4, 3)
    assert x.eq(1).all()
    with pytest.raises(ValueError, match="n_ops=0"):
        fusion.chain(x, 0)


def test_calls_to_pay():
    assert fusion.calls_to_pay(6.0, 0.005, 0.003) == 3000
    assert math.isinf(fusion.calls_to_pay(6.0, 0.003, 0.004))
    with pytest.raises(ValueError, match="compile_seconds=-1"):
        fusion.calls_to_pay(-1, 1, 1)


CALL = """
def call(self, args):
    assert_size_stride(arg0_1, (6, 8), (8, 1), 'input')
    buf0 = empty_strided_cpu(({n}, 8), (8, 1), torch.{dtype})
    extern_kernels.mm(reinterpret_tensor(arg0_1, (2, 8), (8, 1), 0), arg0_1, out=buf0)
    buf1 = torch.ops.aten.bmm.default(buf0, buf0)
    assert_size_stride(buf1, (6, 8), (8, 1), 'torch.ops.aten.bmm.default')
    return (buf1, )

arg0_1 = rand_strided((6, 8), (8, 1), device='cpu', dtype=torch.{dtype})
"""


@pytest.mark.parametrize(("dtype", "size"), [("bfloat16", 2), ("float32", 4), ("float64", 8)])
def test_generated_code_is_counted_in_its_own_type(dtype, size):
    kernels = inductor.kernels(CALL.format(n=6, dtype=dtype))
    assert [kernel.bytes for kernel in kernels] == [size * (16 + 48 + 48), size * (48 + 48 + 48)]
    assert inductor.kernels(CALL.format(n=6, dtype="int16"))[0].bytes == 2 * 112


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(n="s77"), r"shape='\(s77, 8\)': expected numbers, as with dynamic=False"),
        (dict(dtype="float8_e4m3fn"), "dtype='float8_e4m3fn': expected one of"),
    ],
)
def test_what_has_no_size_in_generated_code_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        inductor.kernels(CALL.format(**(dict(n=6, dtype="float32") | changes)))


@torch.no_grad()
def test_a_module_with_other_kernels_is_counted():
    """Nothing is particular to our block: a network of torch's own."""
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4), nn.Sigmoid())
    report = fusion.inductor_report(model, torch.ones(3, 8))
    assert report.n_ops == 4
    assert [kernel.kind for kernel in report.kernels] == ["product", "fused"] * 2
    assert report.kernels[1].bytes == 2 * 4 * 3 * 16
