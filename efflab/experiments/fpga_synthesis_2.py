"""The clock of a full FPGA: 12 x 12 cells take 144 of the LFE5U-85F's 156 multipliers.

Placed and routed as in `fpga_synthesis`, with other seeds; some minutes each.
"""

from efflab.experiments import fpga_synthesis
from efflab.experiments.record import run_cases
from efflab.experiments.registration import rules_for

NAME = "fpga-synthesis-2"
SIDE, SEEDS = 12, (81, 82, 83)


def cases() -> list[dict]:
    """One placement for each seed."""
    return [dict(part="routed", family="ecp5", side=SIDE, seed=seed) for seed in SEEDS]


def run(*, fresh: bool = False) -> dict:
    """Route the unit with each seed; recorded as fpga-synthesis-2."""
    options = dict(fpga_synthesis.COMMON, rules=rules_for(NAME), fresh=fresh)
    return run_cases(NAME, cases(), fpga_synthesis.run_one, **options)
