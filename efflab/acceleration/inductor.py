"""What `torch.compile` makes of a program, read from the code that Inductor generates.

Inductor writes a Python program that calls its fused C++ (or Triton) kernels and library matrix
products in order. The program contains the shapes of its buffers, so the bytes that each kernel
reads and writes can be summed. On a CPU Inductor needs a C++ compiler.
"""

import math
import operator
import re
import time
from collections.abc import Callable, Iterator
from itertools import dropwhile, takewhile

from efflab.acceleration.graph import FusionReport, Kernel, Op, Operand, reads_of
from efflab.arguments import check_module
from efflab.errors import require, require_one_of

VIEWS = frozenset(["_unsafe_view", "detach", "lift_fresh", "alias", "scalar_tensor"])
"""Operators that move nothing although torch does not mark them as views."""
UNSEEN = frozenset("view unsafe_view transpose permute scalar_tensor select".split())
"""Operators in a fused kernel's name that do no work."""
BYTES = dict(float32=4, float16=2, bfloat16=2, float64=8)
BYTES |= dict(int64=8, int32=4, int16=2, int8=1, uint8=1, bool=1)
_CALL = re.compile(
    r"^\s*(?:(\w+) = )?(cpp_fused\w*|triton_\w+\.run|extern_kernels\.\w+"
    r"|torch\.ops\.[\w.]+)\((.*)\)"
)
_NEW = re.compile(r"^\s*(\w+) = empty_strided\w*\(\((.*?)\), \(.*?\), torch\.(\w+)\)")
_ARGUMENT = re.compile(r"^\s*(\w+) = rand_strided\(\((.*?)\), .*?dtype=torch\.(\w+)\)", re.M)
_CHECK = re.compile(r"^\s*assert_size_stride\((\w+), \((.*?)\),")
_BUFFER = re.compile(r"reinterpret_tensor\((\w+), \((.*?)\), \(.*?\), \d+\)|\b((?:buf|arg)\w+)")
_RENAME = re.compile(r"^\s*(\w+) = (?:(\w+)|reinterpret_tensor\((\w+),.*\)); del ")
_ITEM = re.compile(r"^\s*(\w+) = (\w+)\[\d+\]$")


def inductor_report(fn: Callable, *args, dynamic: bool | None = False) -> FusionReport:
    """What `torch.compile` makes of `fn(*args)`; all earlier compilations are discarded.

    Operations are those that eager torch would run, without views; kernels are the calls of the
    generated program, whose fused loops are in `code`. Each tensor that a kernel takes counts once,
    or twice if it is changed in place. `seconds` are those of the first call, fewer if the kernels
    are still in the machine's cache on disk.
    """
    import torch
    from torch._inductor.utils import run_and_get_code

    with torch.no_grad():
        ops = operations(fn, *args)
        start = time.perf_counter()
        _, codes = run_and_get_code(torch.compile(fn, dynamic=dynamic), *args)
        seconds = time.perf_counter() - start
    require(len(codes) == 1, "fn", fn, "a function that compiles to one graph")
    return FusionReport.of(ops, kernels(codes[0]), seconds=seconds, code=codes[0])


def operations(fn: Callable, *args) -> list[Op]:
    """The ATen operators that eager torch runs for `fn(*args)`, without views."""
    import torch
    from torch.fx.experimental.proxy_tensor import make_fx

    with torch.no_grad():
        graph = make_fx(fn)(*args)
    ops: list[Op] = []
    results: dict[str, Operand] = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            results[node.name] = Operand(node.name, _nbytes(getattr(graph, node.target)))
        elif node.op == "placeholder":
            results[node.name] = Operand(node.name, _nbytes(node.meta["val"]))
        elif node.op == "call_function":
            results[node.name] = _append_call(node, results, ops)
    return ops


def _append_call(node, results: dict[str, Operand], ops: list[Op]) -> Operand:
    """Append one call to `ops`, unless it is a view; returns its result as an operand."""
    operands = [results[n.name] for n in node.all_input_nodes if n.name in results]
    nbytes = _nbytes(node.meta["val"])
    name = getattr(node.target, "__name__", str(node.target)).split(".")[0]
    is_view = node.target is operator.getitem or getattr(node.target, "is_view", False)
    if is_view or name in VIEWS:
        several = isinstance(node.meta["val"], tuple | list)  # each is viewed by its getitem
        base = operands[0] if operands else Operand()
        return base if several else base.view(node.name, nbytes)
    opcode = name.removesuffix("_flash_attention_for_cpu")
    ops.append(Op(node.name, opcode, reads_of(operands), nbytes))
    return Operand(node.name, nbytes)


def _nbytes(value) -> int:
    """Bytes of a tensor, or of the first of several results; the others are statistics."""
    if isinstance(value, tuple | list):
        value = value[0]
    return value.numel() * value.element_size()


def kernels(code: str) -> list[Kernel]:
    """The kernels that Inductor's generated program calls, in order."""
    buffers = {name: (_size(shape, dtype), dtype) for name, shape, dtype in _ARGUMENT.findall(code)}
    own = "float32"  # of what a library call allocates: as its operands
    in_place = {name: _signature(code, name) for name in set(re.findall(r"cpp_fused\w+", code))}
    writer: dict[str, str] = {}
    kernels: list[Kernel] = []
    for line in _body(code):
        if new := _NEW.match(line):
            buffers[new[1]] = _size(new[2], new[3]), new[3]
        elif rename := _RENAME.match(line):
            old = rename[2] or rename[3]
            buffers[rename[1]] = buffers[old]
            writer[rename[1]] = writer.get(old, old)
        elif item := _ITEM.match(line):
            writer[item[1]] = writer.get(item[2], item[2])
        elif (check := _CHECK.match(line)) and check[1] not in buffers:
            nbytes = _size(check[2], own)
            buffers[check[1]] = nbytes, own
            # a library call that allocates its own result: the next line checks its size
            kernels[-1] = kernels[-1]._replace(bytes=kernels[-1].bytes + nbytes)
        elif call := _CALL.match(line):
            operands = (buffers[name][1] for name, _ in _buffers(call[3]))
            own = next((dtype for dtype in operands if "float" in dtype), "float32")
            kernels.append(_kernel(call, len(kernels), buffers, in_place, writer))
    return kernels


def _body(code: str) -> Iterator[str]:
    """The lines of the generated program's `call`."""
    lines = dropwhile(lambda line: not re.match(r"\s*def call\(", line), code.splitlines())
    return takewhile(lambda line: not re.match(r"\s*return ", line), lines)


def _kernel(call: re.Match, index: int, buffers: dict, in_place: dict, writer: dict) -> Kernel:
    result, target, arguments = call.groups()
    fused = target.startswith(("cpp_fused", "triton_"))
    name = target if fused else f"{_library_name(target)}_{index}"
    signature = iter(in_place.get(target, ()))
    moved, inputs, outputs = 0, [], []
    for buffer, shape in _buffers(arguments):
        size, dtype = buffers[buffer]
        size = min(size, BYTES[dtype] * math.prod(shape)) if shape else size
        is_out = re.search(rf"out=(reinterpret_tensor\()?{buffer}\b", arguments)
        way = next(signature, "in") if fused else ("out" if is_out else "in")
        moved += 2 * size if way == "in_out" else size
        if way != "out":
            inputs.append(writer.get(buffer, buffer))
        if way != "in":
            outputs.append(buffer)
    for buffer in filter(None, [*outputs, result]):
        writer[buffer] = name
    ops = _operations_in(name)
    opcode = "fusion" if fused else ops[0]
    return Kernel(name, opcode, ops, tuple(dict.fromkeys(inputs)), moved)


def _library_name(target: str) -> str:
    """ "extern_kernels.mm" -> "mm", "torch.ops.aten.bmm.default" -> "bmm"."""
    parts = target.split(".")
    return parts[3] if parts[0] == "torch" else parts[-1]


def _buffers(arguments: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Each buffer among a call's arguments, with the view's shape if it is a view, else ()."""
    for view, shape, plain in _BUFFER.findall(arguments):
        yield view or plain, _dimensions(shape)


def _signature(code: str, name: str) -> list[str]:
    """ "in", "out" or "in_out" for each pointer argument of a C++ kernel, in order."""
    match = re.search(rf"^{name} = .*?void\s+kernel\((.*?)\)\n", code, re.M | re.S)
    return re.findall(r"(in_out|in|out)_ptr\d+", match[1]) if match else []


def _operations_in(name: str) -> tuple[str, ...]:
    """The operators in a kernel's name: "cpp_fused_add_native_layer_norm_view_1"."""
    text = re.sub(r"_\d+$", "", name.removeprefix("cpp_fused_"))
    if not name.startswith("cpp_fused"):
        return (text.strip("_").removesuffix("_flash_attention_for_cpu"),)
    known = r"unsafe_view|native_layer_norm|scalar_tensor|[a-z]+"
    return tuple(op for op in re.findall(known, text) if op not in UNSEEN)


def _size(shape: str, dtype: str) -> int:
    require_one_of("dtype", dtype, BYTES)
    return BYTES[dtype] * math.prod(_dimensions(shape))


def _dimensions(shape: str) -> tuple[int, ...]:
    numbers = [n for n in shape.replace(" ", "").split(",") if n]
    is_static = all(n.isdigit() for n in numbers)
    require(is_static, "shape", f"({shape})", "numbers, as with dynamic=False")
    return tuple(map(int, numbers))


def cpp_source(report: FusionReport, name: str) -> str:
    """The C++ that Inductor generated for one fused kernel, from its signature on."""
    fused = [k.name for k in report.kernels if k.opcode == "fusion"]
    require(name in fused, "name", name, "one of " + ", ".join(fused))
    pattern = rf"^{name} = async_compile\.\w+\(.*?r'''\n(.*?)\n'''"
    source = re.findall(pattern, report.code, re.M | re.S)[0]
    # for reading: no guards around integer division, and no casts of literals
    lines = [x for x in source.splitlines() if "integer_div" not in x and "#include" not in x]
    source = re.sub(r"static_cast<int64_t>\((\w+?)L?\)", r"\1", "\n".join(lines))
    return re.sub(r"static_cast<float>\(([\d.e-]+)\)", r"\1f", source)


check_module(__name__)
