"""Operations, the kernels that a compiler makes of them, and a fuser short enough to read.

Bytes are those of tensors read and written, each once a kernel: what would go through main memory
if no cache held anything. Views (reshape, broadcast, transpose, slice) are no operations: they
move nothing until a kernel reads through them, and then only what it reads.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from efflab.arguments import check_arguments
from efflab.rules import Count

PRODUCTS = frozenset(
    "dot dot_general mm bmm addmm convolution custom-call scaled_dot_product".split()
)
REDUCTIONS = frozenset("reduce mean sum amax max native_layer_norm argmax var".split())
MOVEMENTS = frozenset("copy clone concatenate cat pad gather scatter iota transpose".split())


@check_arguments
@dataclass(frozen=True)
class Op:
    """One operation of a program that is not compiled.

    `reads`: {operation or argument: bytes that it reads of it}; `nbytes`: of its result; `part`: of
    the model, where the program says so.
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
        """Read and written by this operation alone."""
        return sum(self.reads.values()) + self.nbytes


@check_arguments
@dataclass(frozen=True)
class Kernel:
    """What runs as one: a fused loop or a library's call.

    `ops`: what it computes, as the compiler names it; `inputs`: kernels and arguments it reads.
    """

    name: str
    opcode: str
    ops: tuple[str, ...]
    inputs: tuple[str, ...]
    bytes: int
    part: str = ""

    @property
    def kind(self) -> str:
        """ "product" where it only multiplies matrices, "fused" otherwise."""
        products = all(kind(op.split("/")[-1]) == "product" for op in self.ops)
        return "product" if self.ops and products else "fused"


@check_arguments
@dataclass(frozen=True)
class FusionReport:
    """What compiling did: operations and their bytes before, kernels and theirs after.

    `compiler_bytes`: the compiler's own count (before, after) where it gives one; it may count
    otherwise, as its docstring says. `seconds`: of compiling. `code`: what it generated.
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
        """Counts and sums of both lists."""
        before, after = sum(op.bytes for op in ops), sum(k.bytes for k in kernels)
        return cls(len(ops), len(kernels), before, after, tuple(ops), tuple(kernels), **more)


@check_arguments
def kind(opcode: str) -> str:
    """The kind of an operation by its name; what is not listed works value by value."""
    name = opcode.removeprefix("_")
    if any(name.startswith(product) for product in ("dot", "scaled_dot_product")):
        return "product"
    for names, found in ((PRODUCTS, "product"), (REDUCTIONS, "reduction"), (MOVEMENTS, "movement")):
        if name in names or name.removeprefix("reduce_") in names:
            return found
    return "elementwise"


@check_arguments
@dataclass(frozen=True)
class Operand:
    """What an operand shows: `nbytes` of the tensor `source`; `part` tells slices of one apart."""

    source: str = ""  # empty for what is not in memory, such as constants
    nbytes: int = 0
    part: str = ""

    def view(self, name: str, nbytes: Count) -> "Operand":
        """A view of this, the fewer bytes of the two: a broadcast repeats, a slice leaves out."""
        if nbytes < self.nbytes:
            return Operand(self.source, nbytes, name)
        return self


@check_arguments
def reads_of(operands: Iterable[Operand]) -> dict[str, int]:
    """{source: bytes read}: one tensor twice counts once; q, k and v, slices of one, count each."""
    reads: dict[str, int] = {}
    for seen in dict.fromkeys(operands):
        if seen.source:
            reads[seen.source] = reads.get(seen.source, 0) + seen.nbytes
    return reads


@check_arguments
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


@check_arguments
def fuse_report(ops: Sequence[Op]) -> FusionReport:
    """`fuse` as a report: a kernel reads what others made and writes what others read."""
    groups = fuse(ops)
    home = {op.name: i for i, group in enumerate(groups) for op in group}
    readers: dict[str, set[int]] = {}
    for op in ops:
        for name in op.reads:
            readers.setdefault(name, set()).add(home[op.name])
    kernels = [_kernel(group, i, home, readers) for i, group in enumerate(groups)]
    return FusionReport.of(ops, kernels)


def _kernel(group: Sequence[Op], i: int, home: dict[str, int], readers: dict) -> Kernel:
    inside = {op.name for op in group}
    read: dict[str, int] = {}
    for op in group:
        for name, size in op.reads.items():
            if name not in inside:
                read[name] = max(size, read.get(name, 0))
    written = sum(op.nbytes for op in group if _leaves(op.name, i, readers))
    sources = dict.fromkeys(f"kernel {home[n]}" if n in home else n for n in read)
    return Kernel(
        name=f"kernel {i}",
        opcode="fusion" if len(group) > 1 else group[0].opcode,
        ops=tuple(f"{op.part}/{op.opcode}" for op in group),
        inputs=tuple(sources),
        bytes=sum(read.values()) + written,
        part=group[-1].part,
    )


def _leaves(name: str, kernel: int, readers: dict[str, set[int]]) -> bool:
    """Whether other kernels read a result, or nobody does, which makes it the program's."""
    readers_of: Collection[int] = readers.get(name, ())
    return not readers_of or any(k != kernel for k in readers_of)
