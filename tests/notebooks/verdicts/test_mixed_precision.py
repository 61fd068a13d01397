"""Notebook 06's verdicts: what their parts come to, by steps, tables and records that may be."""

import pytest

from efflab.bench import Comparison, Timing
from efflab.estimate import Estimate
from efflab_rooms.mixed_precision import measure, verdicts

TOKENS = [n * measure.LENGTH for n in measure.BATCHES]
HERE = Comparison(
    {"baseline": Timing((1.0,))}, {"autocast": Estimate(0.8, 0.7, 0.9)}, Estimate(1, 0.95, 1.05)
)


def steps(kept=0.55, in_chunks=0.5, state=1.0, peak=0.65):
    """Steps as `measure.grown_steps` gives them; the shares are those of master weights."""
    by_case = {}
    for tokens in TOKENS:
        whole = measure.formula_bytes("fp32", tokens // measure.LENGTH, measure.LENGTH)
        base = measure.totals(whole)
        for chunk, share in ((0, kept), (measure.CHUNK, in_chunks)):
            mixed = {
                "state": state * base["state"],
                measure.BACKWARD: share * base[measure.BACKWARD],
                measure.PEAK: peak * base[measure.PEAK],
            }
            by_case |= {(tokens, chunk, "fp32"): base, (tokens, chunk, "master weights"): mixed}
        by_case[tokens, 0, "autocast"] = measure.totals(
            measure.formula_bytes("autocast", tokens // measure.LENGTH, measure.LENGTH)
        )
    return by_case


def speeds(a100=1.0, v100=1.0, h100=1.0):
    """Evidence on speed with all gains of a kind times a factor."""
    factors = {"A100": a100, "V100": v100}
    runs = [r | dict(gain=r["gain"] * factors[r["device"][:4]]) for r in verdicts.published_runs()]
    products, trained = verdicts.recorded_h100()
    keys = ("faster", "low", "high")
    faster = [row | {key: h100 * row[key] for key in keys} for row in products]
    return verdicts.speed_evidence(runs, (faster, trained), HERE)


def drives():
    """(claim, evidence) of other steps, tables and records."""
    for changes in ({}, dict(state=0.5, peak=0.5), dict(kept=0.5503, in_chunks=0.52)):
        yield "amp-memory", verdicts.memory_evidence(steps(**changes), [1.0, 2.0])
    for changes in ({}, dict(a100=2.1), dict(v100=0.7, h100=2.5)):
        yield "amp-speed", speeds(**changes)


@pytest.mark.parametrize(
    ("drive", "words"),
    [
        (0, ["does not hold", "holds if", "does not hold"]),
        (1, ["holds", "holds if", "holds"]),
        (2, ["does not hold", "does not hold", "does not hold"]),
        (3, ["does not hold", "holds", "does not hold"]),
        (4, ["holds", "holds", "does not hold"]),
        (5, ["does not hold", "does not hold", "undecided"]),
    ],
)
def test_each_part_comes_to_what_its_numbers_say(drive, words):
    claim, evidence = list(drives())[drive]
    outcome = getattr(verdicts, claim.replace("-", "_"))(evidence)
    assert [part.outcome for part in outcome.parts] == words


def test_what_is_kept_is_checked_against_the_formula():
    """Counts that the formula does not explain leave the part undecided."""
    evidence = verdicts.memory_evidence(steps(kept=0.6), [2.0])
    assert verdicts.amp_memory(evidence).parts[1].outcome == "undecided"
    right = verdicts.memory_evidence(steps(), [2.0])
    shares = {item.id: item.value for item in right}
    assert shares["formula"] == pytest.approx(1, abs=0.01)
    assert shares["kept-2k"] == pytest.approx(55)
    assert shares["step-10k-chunks"] == pytest.approx(65)
    assert {f"step-{n // 1000}k" for n in TOKENS} <= shares.keys()


def test_every_published_row_is_a_figure():
    evidence = [item for item in speeds() if item.kind == "published"]
    assert len({item.id for item in evidence}) == len(verdicts.published_runs()) == 14
    h100 = {item.id: item for item in speeds() if item.id.startswith("h100")}
    assert h100["h100-step-4"].value == pytest.approx(1.66, abs=0.01)
    assert h100["h100-256"].low < 1 < h100["h100-256"].high < 3
