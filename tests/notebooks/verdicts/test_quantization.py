"""Notebook 09's verdicts: every outcome that each part can come to."""

import pytest

from efflab import lab, points
from efflab.compression import packed
from efflab.config import PRESETS
from efflab.estimate import Estimate
from efflab.experiments import int8_ranges as ranges
from efflab.model import Transformer
from efflab_rooms.quantization import verdicts


def size(linear=35.4, both=74.65, bert=74.8, gpt2=74.8):
    """Evidence of files, and of shapes, that are so many per cent smaller."""
    smaller = {"linear": linear, "all": both, "groups": both - 3}
    parts = {"embeddings (token, position, type)": 50, "linear layers": 50}
    full = 4 * sum(parts.values())
    files = {key: (0, full - full * share / 100) for key, share in smaller.items()}
    shapes = {"bert-base": bert, "gpt2": gpt2, "gpt3-175b": 74.7}
    return verdicts.size_evidence(files, parts, shapes)


KEEPS, LOSES, WIDE = (-0.9, -0.3, 0.1), (-9, -6, -3), (-1.2, -0.4, 0.4)
GOOD, BAD, UNSURE = (-0.001, 0.0, 0.001), (-0.3, -0.2, -0.1), (-0.02, -0.005, 0.01)
CONTROL, CALIBRATED = ranges.CONTROL, (ranges.MINMAX, *ranges.CUT, ranges.SMOOTHED)


def accuracy(changed=None, control=BAD, rest=GOOD, smoothed=KEEPS, unadjusted=LOSES):
    """Evidence of runs with an MRR of fp32 of 0.8; `changed`: form -> (low, middle, high).

    `smoothed`, `unadjusted`: (low, middle, high) in % among the 3,000 functions.
    """
    losses = dict.fromkeys(ranges.FORMS, rest) | {CONTROL: control} | (changed or {})
    runs = {}
    for form, (low, middle, high) in losses.items():
        runs[form] = {"mrr fp32": 0.8, "mrr less fp32": middle, "mrr less fp32 low": low}
        runs[form] |= {"mrr less fp32 high": high, "cosine p5": 0.99}
        runs[form] |= {"cosine p5 low": 0.98, "cosine p5 high": 0.995}
    more = {"smoothed-3000": smoothed, "control-3000": unadjusted}
    differences = {key: Estimate(mean, low, high) for key, (low, mean, high) in more.items()}
    return verdicts.accuracy_evidence(runs, differences)


def drives():
    """Files of other models, with fewer or more tables; records of other texts and models."""
    yield from (
        ("int8-size", evidence) for evidence in (size(), size(74.7), size(both=71, gpt2=70))
    )
    for evidence in (accuracy(), accuracy(rest=UNSURE), accuracy(rest=BAD), accuracy(control=GOOD)):
        yield "int8-accuracy", evidence
    for smoothed in (WIDE, LOSES):
        yield "int8-accuracy", accuracy(smoothed=smoothed)


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        (size(), ("does not hold", "holds")),
        (size(linear=74.5), ("holds", "holds")),
        (size(linear=74.4, both=74.5), ("does not hold", "holds")),
        (size(both=74.4), ("does not hold", "does not hold")),
        (size(gpt2=74.4), ("does not hold", "does not hold")),
    ],
)
def test_int8_size(evidence, words):
    assert tuple(part.outcome for part in verdicts.int8_size(evidence).parts) == words


def test_evidence_of_the_size_is_weighed_files_and_counted_shapes():
    model = points.encoder()[0]
    files, full = verdicts.file_sizes(model), points.weight_bytes(model)
    shapes = verdicts.shape_savings()
    found = lab.by_id(verdicts.size_evidence(files, verdicts.parts(model), shapes))
    for id, key in {"linear": "linear", "minilm": "all", "groups": "groups"}.items():
        assert found[id].value == pytest.approx(100 - 100 * files[key][1] / full, abs=1e-3)
        assert found[id].ends == (found[id].value, found[id].value)
    assert found["half"].value == pytest.approx(100 - 2 * (100 - found["minilm"].value))
    assert found["table-share"].value == pytest.approx(52.7, abs=0.5)
    # 768 or 3,072 inputs share a scale of 4 bytes; a thousandth of the parameters stays in fp32
    assert found["bert-base"].value == pytest.approx(75 - 25 * 4 / 768, abs=0.1)
    assert found["gpt3-175b"].value > 74.7


@pytest.mark.parametrize("embeddings", [False, True])
def test_the_savings_of_a_shape_are_those_of_a_model(embeddings):
    config = PRESETS["minilm-l6"]
    model = Transformer(config)
    quantized = packed.quantize_weights(model, 8, embeddings=embeddings, axis=0)
    share = packed.model_bytes(model, quantized) / packed.model_bytes(model, {})
    assert verdicts.smaller_by(config, embeddings=embeddings) == pytest.approx(100 - 100 * share)


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        (accuracy(), ("holds", "holds")),
        (accuracy(control=GOOD), ("holds", "undecided")),  # no loss could have shown
        (accuracy(control=(-0.3, -0.2, -0.008)), ("holds", "undecided")),  # at the bar
        (accuracy(unadjusted=KEEPS), ("undecided", "holds")),
        (accuracy(unadjusted=(-3, -2, -0.9)), ("undecided", "holds")),  # at the bar
        (accuracy(rest=(-0.0055, 0.0, 0.001)), ("holds", "holds")),
        (accuracy(rest=(-0.0057, 0.0, 0.001)), ("holds", "undecided")),  # by chance, of ten
        (accuracy({ranges.SMOOTHED: BAD}), ("holds", "holds")),  # one draw, fewer functions
        (accuracy(smoothed=(-1.01, -0.3, 0.1)), ("undecided", "holds")),
        (accuracy(smoothed=LOSES), ("does not hold", "holds")),
        (accuracy({ranges.BY_TOKEN: BAD}), ("holds", "does not hold")),
        (accuracy({verdicts.CUT: BAD, ranges.ONE_SCALE: BAD}), ("holds", "holds")),
    ],
)
def test_int8_accuracy(evidence, words):
    assert tuple(part.outcome for part in verdicts.int8_accuracy(evidence).parts) == words


def test_the_recorded_forms_give_the_figures():
    runs = verdicts.recorded_forms()
    found = lab.by_id(verdicts.accuracy_evidence(runs, verdicts.recorded_differences()))
    row = runs[ranges.SMOOTHED]
    assert found["smoothed"].value == 100 * row["mrr less fp32"] / row["mrr fp32"]
    narrow = 100 * (row["mrr less fp32 high"] - row["mrr less fp32"]) / row["mrr fp32"]
    wide = found["smoothed"].high - found["smoothed"].value
    assert wide / narrow == pytest.approx(2.807 / 1.960, rel=1e-3)  # 99.5 % beside 95 %
    control = runs[CONTROL]
    assert found["control"].low == 100 * control["mrr less fp32 low"] / control["mrr fp32"]
    assert set(verdicts.WAYS) == set(ranges.FORMS) - {CONTROL}  # no way is left out
    for key, estimate in verdicts.recorded_differences().items():
        mean, *ends = estimate.mean, estimate.low, estimate.high
        assert found[key].value == mean
        assert found[key].ends == pytest.approx(ends, rel=1e-5)  # as stored


def test_every_way_is_shown_in_its_family_and_one_decides():
    calibrated, dynamic = verdicts.int8_accuracy(accuracy()).parts
    ids = {verdicts.WAYS[form] for form in CALIBRATED}
    others = set(verdicts.WAYS.values()) - ids
    assert ids <= {e.id for e in calibrated.evidence}
    assert others <= {e.id for e in dynamic.evidence}
    assert set(calibrated.decisions) == {"smoothed-3000", "control-3000"}
    assert set(dynamic.decisions) == {"by-token", "control"}
