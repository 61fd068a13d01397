"""Where the time goes: PyTorch Profiler's events as rows with FLOPs and bytes, and as a timeline.

The profiler knows how long each operator ran; shapes tell how much it computed and moved. Both
come from the same code run twice, once under the profiler and once under a dispatch mode.
"""

import os
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from efflab.arguments import check_module
from efflab.rules import Size
from efflab.tensors import AnyTensor

PART = "part: "  # marks our own spans among the profiler's events


class Operator(NamedTuple):
    """One kind of operator over the whole profile."""

    name: str
    calls: int
    seconds: float
    flops: int  # 2 per multiply-accumulate; only products count
    bytes: int  # of its inputs and outputs, as if each came from and went to memory once

    @property
    def intensity(self) -> float:
        """FLOPs per byte, the roofline's horizontal axis."""
        return self.flops / self.bytes if self.bytes else 0.0


class Span(NamedTuple):
    """A stretch of time: an operator (`part` names where it ran) or a whole part."""

    name: str
    part: str
    start: float  # seconds from the first event
    seconds: float


class Profile(NamedTuple):
    """What one run did. `operators` by time, longest first; `spans` in order of start."""

    operators: list[Operator]
    spans: list[Span]
    seconds: float

    @property
    def flops(self) -> int:
        """FLOPs of all operators."""
        return sum(op.flops for op in self.operators)

    def part_seconds(self) -> dict[str, float]:
        """Seconds of operators by the part in which they ran, longest first."""
        total: dict[str, float] = defaultdict(float)
        for span in self.spans:
            total[span.part] += span.seconds
        return dict(sorted(total.items(), key=lambda item: -item[1]))


def profile(fn: Callable[[], object], parts: dict[str, list[nn.Module]] | None = None) -> Profile:
    """Profile one call of `fn()`, which must do the same work each time it is called.

    `parts` gives modules a name: {"attention": [layer.attention for layer in model.layers]}.
    Operators are those that the dispatcher sees, with what they call inside. Warm up first: this
    runs `fn` twice, first to count FLOPs and bytes, then to time it.
    """
    with Counter() as counter:
        fn()
    with _name_parts(parts or {}), quiet_profiler() as prof:
        fn()
    events = [e for e in prof.events() if e.thread == prof.events()[0].thread]
    spans = list(_spans(events, set(counter.calls)))
    seconds: dict[str, float] = defaultdict(float)
    for span in spans:
        seconds[span.name] += span.seconds
    operators = [
        Operator(name, calls, seconds[name], counter.flops[name], counter.bytes[name])
        for name, calls in counter.calls.items()
        if name in seconds
    ]
    operators.sort(key=lambda op: -op.seconds)
    total = max(s.start + s.seconds for s in spans) if spans else 0.0
    return Profile(operators, spans, total)


def profiler_table(fn: Callable[[], object], n_rows: Size = 8) -> str:
    """PyTorch Profiler's own table of one call of `fn()`, sorted by self time.

    Five of its columns: name, share and self time, total time, number of calls.
    """
    with quiet_profiler() as prof:
        fn()
    options = dict(sort_by="self_cpu_time_total", row_limit=n_rows, max_name_column_width=40)
    *lines, total = prof.key_averages().table(**options).strip().splitlines()
    all_columns = [rule.span() for rule in re.finditer("-+", lines[0])]
    columns = [all_columns[i] for i in (0, 1, 2, 4, 6)]
    return "\n".join(["  ".join(line[a:b] for a, b in columns) for line in lines] + [total])


def allocations(fn: Callable[[], object]) -> list[int]:
    """Bytes of each allocation (positive) and release (negative) on the CPU during `fn()`."""
    with quiet_profiler(profile_memory=True) as prof:
        result = fn()
    del result  # kept until here, so that freeing it is not recorded
    events = prof.profiler.kineto_results.events()
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    return [n for _, n in sorted(changes, key=lambda change: change[0])]


class Counter(TorchDispatchMode):
    """Counts calls, FLOPs and bytes of every operator that runs, by name ("aten::mm").

    Views move nothing and are left out.
    """

    def __init__(self):
        super().__init__()
        self.calls: dict[str, int] = defaultdict(int)
        self.flops: dict[str, int] = defaultdict(int)
        self.bytes: dict[str, int] = defaultdict(int)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if not func.is_view:
            name = func.overloadpacket._qualified_op_name
            inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
            outputs = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
            self.calls[name] += 1
            self.flops[name] += _operator_flops(func, args, kwargs, out)
            self.bytes[name] += _moved_bytes(name, inputs, outputs)
        return out


class ProductsLeftOut(TorchDispatchMode):
    """Matrix products and attention give zeros in what they would have given, without arithmetic.

    What a step allocates depends on the shapes alone, and a CPU without bf16 instructions takes
    many times as long for a 16-bit product.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
            *_, a, b = args
            return a.new_zeros(len(a), b.shape[1])
        if func is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default:
            batch, n_heads, seq_len, _ = args[0].shape
            heads = args[2].new_zeros(batch, seq_len, n_heads, args[2].shape[-1])
            sums = heads.new_zeros(batch, seq_len, n_heads, dtype=torch.float32)
            return heads.transpose(1, 2), sums.transpose(1, 2)  # laid out as the kernel does
        if func is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default:
            return tuple(map(torch.zeros_like, args[1:4]))
        return func(*args, **kwargs or {})


def _operator_flops(func: Any, args: Sequence, kwargs: Mapping, out: Any) -> int:
    """FLOPs of one call: torch's own formulas, and SDPA on a CPU, which they leave out."""
    packet = func.overloadpacket
    if packet in flop_registry:
        return flop_registry[packet](*args, **kwargs, out_val=out)
    if packet is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu:
        return sdpa_flop_count(*(x.shape for x in args[:3]))
    return 0


def _moved_bytes(name: str, inputs: list[AnyTensor], outputs: list[AnyTensor]) -> int:
    """Bytes an operator reads and writes; a lookup reads the rows it returns, not the table."""
    if name in ("aten::embedding", "aten::index_select"):
        return 2 * outputs[0].nbytes + inputs[1].nbytes
    if name.startswith("aten::empty") or name == "aten::_unsafe_view":
        return 0  # neither touches its data
    return sum(x.numel() * x.element_size() for x in inputs + outputs)


@contextmanager
def _name_parts(parts: dict[str, list[nn.Module]]) -> Iterator[None]:
    """Inside the block, each call of these modules is a span with its part's name."""
    running: list[record_function] = []

    def begin(label: str, *_) -> None:
        running.append(record_function(label).__enter__())

    def end(*_) -> None:
        running.pop().__exit__(None, None, None)

    with ExitStack() as stack:
        for part, modules in parts.items():
            for module in modules:
                begin_part = partial(begin, PART + part)
                stack.callback(module.register_forward_pre_hook(begin_part).remove)
                stack.callback(module.register_forward_hook(end).remove)
        yield


@contextmanager
def quiet_profiler(**options: Any) -> Iterator[torch.profiler.profile]:
    """`torch.profiler.profile` of the CPU, without the lines that Kineto writes to stderr."""
    prof = torch.profiler.profile(activities=[ProfilerActivity.CPU], **options)
    with _no_stderr():
        prof.__enter__()
    try:
        yield prof
    finally:
        with _no_stderr():
            prof.__exit__(None, None, None)


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Silences the process's stderr, C++ included, for a moment."""
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def _spans(events, names: set[str]) -> Iterator[Span]:
    """The outermost events called by one of `names`, each with the part it ran in."""
    start = min((e.time_range.start for e in events), default=0)
    for event in sorted(events, key=lambda e: e.time_range.start):
        if event.name not in names:
            continue
        parents = list(_parents(event))
        if any(p.name in names for p in parents):
            continue
        part = next((p.name[len(PART) :] for p in parents if p.name.startswith(PART)), "other")
        elapsed = event.time_range.elapsed_us()
        yield Span(event.name, part, (event.time_range.start - start) / 1e6, elapsed / 1e6)


def _parents(event) -> Iterator:
    while event.cpu_parent is not None:
        event = event.cpu_parent
        yield event


check_module(__name__)
