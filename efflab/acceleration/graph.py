"""Operations, the kernels that a compiler makes of them, and a small fuser.

Bytes are those of tensors read and written, once per kernel: the traffic to main memory without
caches. Views (reshape, broadcast, transpose, slice) are no operations: they move nothing until a
kernel reads through them, and then only the part that it reads.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from efflab.arguments import check_module
from efflab.rules import Count

_OPCODES = {
    "product": "mm bmm mv addmm baddbmm addbmm addmv convolution custom-call",
    "reduction": "reduce reduce-window mean sum prod amax amin max min argmax argmin any all var"
    " var_mean std std_mean softmax log_softmax logsumexp cumsum cumprod linalg_vector_norm"
    " native_layer_norm native_group_norm",
    "movement": "copy clone concatenate cat pad gather scatter iota transpose reverse"
    " dynamic-slice dynamic-update-slice",
}
_KINDS = {opcode: kind for kind, names in _OPCODES.items() for opcode in names.split()}


class Op(NamedTuple):
    """One operation of an uncompiled program.

    `reads`: {operation or argument: bytes read from its result}; `nbytes`: of this result; `part`:
    of the model, if the program has named scopes.
    """

    name: str
    opcode: str
    reads: Mapping[str, int]
    nbytes: int
    part: str = ""

    @property
    def kind(self) -> str:
        """ "product", "reduction", "movement" or "elementwise", which decides what may be fused."""
        return kind(self.opcode)

    @property
    def bytes(self) -> int:
        """Bytes read and written if this operation runs alone."""
        return sum(self.reads.values()) + self.nbytes


class Kernel(NamedTuple):
    """One kernel: a fused loop or a library call.

    `ops`: the operations in it, by the compiler's names; `inputs`: kernels and arguments it reads.
    """

    name: str
    opcode: str
    ops: tuple[str, ...]
    inputs: tuple[str, ...]
    bytes: int
    part: str = ""

    @property
    def kind(self) -> str:
        """ "product" if all its operations are matrix products, else "fused"."""
        products = all(kind(op.split("/")[-1]) == "product" for op in self.ops)
        return "product" if self.ops and products else "fused"


@dataclass(frozen=True)
class FusionReport:
    """The effect of compiling: operations and their bytes before, kernels and theirs after.

    `compiler_bytes`: the compiler's own count (before, after), if it has one, by its own rules.
    `seconds`: of compiling. `code`: the generated code.
    """

    n_ops: int
    n_kernels: int
    bytes_before: int
    bytes_after: int
    ops: tuple[Op, ...] = field(default=(), repr=False)
    kernels: tuple[Kernel, ...] = field(default=(), repr=False)
    compiler_bytes: tuple[int, int] | None = None
    seconds: float = 0.0
    code: str = field(default="", repr=False)

    @classmethod
    def of(cls, ops: Sequence[Op], kernels: Sequence[Kernel], **more) -> "FusionReport":
        """The report of these operations and kernels, with their numbers and bytes."""
        before, after = sum(op.bytes for op in ops), sum(k.bytes for k in kernels)
        return cls(len(ops), len(kernels), before, after, tuple(ops), tuple(kernels), **more)


def kind(opcode: str) -> str:
    """The kind of an operation by its name; "elementwise" if it is not listed."""
    name = opcode.removeprefix("_").removeprefix("reduce_")
    if name.startswith(("dot", "scaled_dot_product")):
        return "product"
    return _KINDS.get(name, "elementwise")


class Operand(NamedTuple):
    """What an operand refers to: `nbytes` of the tensor `source`; `part` distinguishes slices."""

    source: str = ""  # empty if it is not in memory, such as constants
    nbytes: int = 0
    part: str = ""

    def view(self, name: str, nbytes: Count) -> "Operand":
        """A view of this operand: a slice has fewer bytes, a broadcast no more than before."""
        if nbytes < self.nbytes:
            return Operand(self.source, nbytes, name)
        return self


def reads_of(operands: Iterable[Operand]) -> dict[str, int]:
    """{source: bytes read}: a repeated operand counts once, different slices of a tensor add up."""
    reads: dict[str, int] = {}
    for operand in dict.fromkeys(operands):
        if operand.source:
            reads[operand.source] = reads.get(operand.source, 0) + operand.nbytes
    return reads


def fuse(ops: Sequence[Op]) -> list[list[Op]]:
    """Kernels of operations in order, by the one rule that loop fusion needs.

    An operation joins the latest kernel that it reads from, unless it is a product or that kernel
    ends in one or in a reduction: what a reduction gives is known only when its loop is over. As
    nothing reads from a later kernel than its own, the kernels can run in this order.
    """
    kernels: list[list[Op]] = []
    home: dict[str, int] = {}
    for op in ops:
        latest = max((home[name] for name in op.reads if name in home), default=-1)
        is_open = latest >= 0 and kernels[latest][-1].kind not in ("product", "reduction")
        if op.kind == "product" or not is_open:
            kernels.append([])
            latest = len(kernels) - 1
        kernels[latest].append(op)
        home[op.name] = latest
    return kernels


def fuse_report(ops: Sequence[Op]) -> FusionReport:
    """`fuse` as a report: a kernel reads others' results and writes those that others read."""
    groups = fuse(ops)
    home = {op.name: i for i, group in enumerate(groups) for op in group}
    readers: dict[str, set[int]] = {}
    for op in ops:
        for name in op.reads:
            readers.setdefault(name, set()).add(home[op.name])
    kernels = [_kernel(group, i, home, readers) for i, group in enumerate(groups)]
    return FusionReport.of(ops, kernels)


def _kernel(group: Sequence[Op], i: int, home: dict[str, int], readers: dict) -> Kernel:
    read: dict[str, int] = {}
    for op in group:
        for name, size in op.reads.items():
            if home.get(name) != i:
                read[name] = max(size, read.get(name, 0))
    # what only this kernel reads stays in it; what none reads is the program's output
    written_bytes = sum(op.nbytes for op in group if readers.get(op.name) != {i})
    sources = dict.fromkeys(f"kernel {home[n]}" if n in home else n for n in read)
    return Kernel(
        name=f"kernel {i}",
        opcode="fusion" if len(group) > 1 else group[0].opcode,
        ops=tuple(f"{op.part}/{op.opcode}" for op in group),
        inputs=tuple(sources),
        bytes=sum(read.values()) + written_bytes,
        part=group[-1].part,
    )


check_module(__name__)
