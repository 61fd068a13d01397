"""What XLA makes of a program, read from its own HLO text; through JAX, on the CPU.

HLO is XLA's language: one instruction per line, `%name = f32[2,3]{1,0} opcode(%operands), ...`. A
fusion calls its own computation, whose instructions run as one loop. Format: OpenXLA,
"HLO text", https://openxla.org/xla/operation_semantics.
"""

import math
import os
import re
import time
from collections.abc import Callable
from typing import NamedTuple

from efflab.acceleration.graph import FusionReport, Kernel, Op, Operand, reads_of
from efflab.arguments import check_module
from efflab.errors import require

VIEWS = frozenset("reshape bitcast broadcast transpose slice get-tuple-element tuple".split())
SOURCES = frozenset(["parameter", "constant"])
FREE = VIEWS - {"transpose", "slice", "broadcast"}
"""Instructions that cost nothing in a compiled program; the other views are copies there."""
_TYPE = re.compile(r"(\w+)\[([\d,]*)\]")
_LINE = re.compile(r"\s*(ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+)(?: \(.*\) -> .*)? \{\s*$")
_BITS = dict(pred=8, token=0)


class Instruction(NamedTuple):
    """One line of HLO; `scope`: named scopes and primitive, such as "softmax/exp"."""

    name: str
    opcode: str
    operands: tuple[str, ...]
    nbytes: int
    scope: str
    calls: str
    is_root: bool


Computations = dict[str, list[Instruction]]


def load_jax():
    """JAX for the CPU, with as many threads as torch, since XLA has its own thread pool."""
    import torch

    os.environ.setdefault("NPROC", str(torch.get_num_threads()))  # read once, when JAX starts
    import jax

    jax.config.update("jax_platforms", "cpu")
    return jax


def xla_report(fn: Callable, *args) -> FusionReport:
    """What `jax.jit` makes of `fn(*args)`, traced and compiled anew.

    Operations are the instructions given to XLA, without views and constants: what a library
    without a compiler would run one by one. Kernels are the instructions of the compiled program's
    entry. Bytes are counted by the same rule, which rather underestimates "before" and
    overestimates "after" (a kernel that reads a third of a tensor counts all of it).
    `compiler_bytes`: XLA's own cost analysis, which counts views as copies in "before".
    """
    jax = load_jax()
    lowered = jax.jit(lambda *values: fn(*values)).lower(*args)  # a new function: nothing cached
    start = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    text = compiled.as_text()
    before, after = lowered.cost_analysis(), compiled.cost_analysis()
    return FusionReport.of(
        operations(lowered.compiler_ir("hlo").as_hlo_module().to_string()),
        kernels(text),
        compiler_bytes=(int(before["bytes accessed"]), int(after["bytes accessed"])),
        seconds=seconds,
        code=text,
    )


def op_by_op(fn: Callable, *args) -> Callable[[], object]:
    """A function that runs `fn(*args)` one operation at a time in JAX, and waits for the result."""
    jax = load_jax()

    def call():
        with jax.disable_jit():
            return jax.block_until_ready(fn(*args))

    return call


def compile_call(fn: Callable, *args) -> Callable[[], object]:
    """A function that runs the jitted `fn(*args)` and waits; it compiles when first called."""
    jax = load_jax()
    jitted = jax.jit(fn)
    return lambda: jax.block_until_ready(jitted(*args))


def operations(text: str) -> list[Op]:
    """The operations of an HLO text before XLA's passes, with calls inlined."""
    computations, entry = parse(text)
    ops: list[Op] = []
    _append_operations(computations, entry, [], ops)
    return ops


def _append_operations(
    computations: Computations, name: str, arguments: list[Operand], ops: list[Op], part: str = ""
) -> Operand:
    """Append the operations of one computation to `ops`; returns its result as an operand.

    `arguments`: operands for its parameters, [] for the entry; `part`: of the model, of the caller.
    """
    where: dict[str, Operand] = {}
    parameters = iter(arguments)
    result = Operand()
    for line in computations[name]:
        operands = [where[o] for o in line.operands if o in where]
        inner = _part(line) or part
        if line.opcode == "parameter":
            here = next(parameters, Operand(line.name, line.nbytes))
        elif line.opcode in VIEWS or line.opcode == "constant":  # which has no operand
            here = operands[0].view(line.name, line.nbytes) if operands else Operand()
        elif line.opcode == "call":
            here = _append_operations(computations, line.calls, operands, ops, line.scope or part)
        else:
            op = Op(f"{line.name}~{len(ops)}", line.opcode, reads_of(operands), line.nbytes, inner)
            ops.append(op)  # its name is numbered, since a computation may be called twice
            here = Operand(op.name, op.nbytes)
        where[line.name] = here
        result = here if line.is_root else result
    return result


def kernels(text: str) -> list[Kernel]:
    """The kernels of a compiled HLO text, in the order in which they run."""
    computations, entry = parse(text)
    where: dict[str, Operand] = {}
    kernels = []
    for line in computations[entry]:
        operands = [where[o] for o in line.operands if o in where]
        if line.opcode in FREE or line.opcode == "constant":
            where[line.name] = operands[0] if operands else Operand()
        else:
            where[line.name] = Operand(line.name, line.nbytes)
            if line.opcode != "parameter":
                kernels.append(_kernel(line, reads_of(operands), computations))
    for i in reversed(range(len(kernels) - 1)):  # XLA's own kernels belong to the next part
        if not kernels[i].part:
            kernels[i] = kernels[i]._replace(part=kernels[i + 1].part)
    return kernels


def _kernel(line: Instruction, reads: dict[str, int], computations: Computations) -> Kernel:
    inner = computations[line.calls] if line.calls else [line]
    ops = tuple(f"{i.scope}/{i.opcode}" for i in inner if i.opcode not in VIEWS | SOURCES)
    moved = sum(reads.values()) + line.nbytes
    parts = [part for i in [line, *reversed(inner)] if (part := _part(i))]
    return Kernel(line.name, line.opcode, ops, tuple(reads), moved, parts[0] if parts else "")


def _part(line: Instruction) -> str:
    return line.scope.rpartition("/")[0]


def parse(text: str) -> tuple[Computations, str]:
    """{computation: its instructions} and the name of the entry."""
    computations: Computations = {}
    current, entry = None, ""
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head and " = " not in line:
            current = computations.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (match := _LINE.match(line)):
            current.append(_instruction(match))
    require(bool(entry), "text", text[:60], "HLO with an ENTRY computation")
    return computations, entry


def _instruction(match: re.Match) -> Instruction:
    root, name, type_, opcode, rest = match.groups()
    inside, attributes = _split(rest)
    operands = () if opcode in SOURCES else tuple(re.findall(r"%([\w.\-]+)", inside))
    calls = re.search(r"(?:calls|to_apply)=%?([\w.\-]+)", attributes)
    op_name = re.search(r'op_name="([^"]*)"', attributes)
    callee = calls[1] if calls and opcode in ("fusion", "call") else ""
    scope = _scope(op_name[1]) if op_name else ""
    return Instruction(name, opcode, operands, type_bytes(type_), scope, callee, bool(root))


def _split(rest: str) -> tuple[str, str]:
    """The text inside the operands' parentheses, and the text after them."""
    depth = 1
    for i, letter in enumerate(rest):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return rest[:i], rest[i + 1 :]
    return rest, ""


def _scope(op_name: str) -> str:
    """ "jit(f)/softmax/jit(_where)/exp" -> "softmax/exp"."""
    first = op_name.split(";")[0]  # a copy for two operations names both
    parts = [part for part in first.split("/") if not part.startswith("jit(")]
    return "/".join(parts)


def type_bytes(text: str) -> int:
    """Bytes of an HLO type; of a tuple, the bytes of all its arrays.

    >>> type_bytes("f32[2,3]{1,0}"), type_bytes("pred[8]"), type_bytes("(bf16[4], s32[])")
    (24, 8, 12)
    """
    total = 0
    for name, dimensions in _TYPE.findall(text):
        digits = re.findall(r"\d+", name)
        bits = _BITS.get(name, int(digits[0]) if digits else 8)
        count = math.prod(int(size) for size in re.findall(r"\d+", dimensions))
        total += (bits * count + 7) // 8
    return total


def kernel_text(report: FusionReport, name: str) -> str:
    """The HLO of one kernel for reading: its computation without layouts and metadata."""
    is_kernel = any(kernel.name == name for kernel in report.kernels)
    require(is_kernel, "name", name, "a kernel of the report")
    text = next(line for line in report.code.splitlines() if f"%{name} = " in line)
    if calls := re.search(r"calls=%?([\w.\-]+)", text):
        text = re.findall(rf"^%{re.escape(calls[1])} .*?^}}", report.code, re.M | re.S)[0]
    text = re.sub(r", (metadata|backend_config)=\{[^\n]*", "", text)
    return re.sub(r"(\])\{[\d,]*\}", r"\1", text).replace("%", "")


check_module(__name__)
