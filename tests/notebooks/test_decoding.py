"""Notebook 16: a cache, bytes, formats, drafts; its figures, explorer and exercises."""

import json

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from efflab import bench, evaluate, lab, points
from efflab.base.stored import figures_of
from efflab.config import PRESETS
from efflab.devices import DEVICES
from efflab.estimate import Estimate
from efflab.lab.judge import read_rules
from efflab.lab.verdict import load_statements
from efflab.publishing import ledger
from efflab.publishing.catalog import ROOT
from efflab_rooms.decoding import exercises, figures, measure, verdicts

TEXT = measure.prompt_ids(12)
FAST, SLOW = bench.Timing((0.001,) * 3), bench.Timing((0.004,) * 3)


def attend(q, k, v, cache):
    for name, new in (("k", k), ("v", v)):
        cache[name] = torch.cat([cache[name], new], 2) if name in cache else new
    return scaled_dot_product_attention(q, cache["k"], cache["v"])


def test_a_cache_gives_the_whole_texts_logits():
    assert measure.differences(TEXT, attend).max() < 1e-4
    assert measure.differences(TEXT, measure.attend_alone)[1:].min() > 1


def test_an_attention_over_whole_texts_is_the_models():
    def attend_all(q, k, v):
        return scaled_dot_product_attention(q, k, v, is_causal=True)

    with torch.no_grad():
        expected = points.language_model()(TEXT)
    torch.testing.assert_close(measure.Changed(attend_all)(TEXT), expected, atol=1e-4, rtol=1e-4)
    whole = exercises.attend_small()
    torch.testing.assert_close(measure.Changed(whole)(TEXT), expected, atol=1e-4, rtol=1e-4)


def test_a_window_and_first_tokens_are_what_is_seen():
    q, k, v = torch.randn(3, 1, 1, 6, 4)
    outputs = exercises.attend_small(window=1, sinks=1)(q, k, v)
    seen = [0, 3, 4]
    expected = scaled_dot_product_attention(q[..., 4:5, :], k[..., seen, :], v[..., seen, :])
    torch.testing.assert_close(outputs[..., 4:5, :], expected)


def test_a_small_caches_share_by_hand():
    assert exercises.small_share() == 1
    assert exercises.small_share(key_bits=4, value_bits=4) == 10 / 32
    assert exercises.small_share(window=123, sinks=4) == 128 / 512


@pytest.mark.parametrize("bad", [dict(window=512), dict(sinks=-1), dict(window=3.5)])
def test_windows_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        exercises.attend_small(**bad)


def test_rounding_keeps_shapes_and_is_finer_with_more_bits():
    x = torch.randn(2, 3, 5, 40)
    errors = [(exercises.round_groups(x, bits) - x).abs().max() for bits in (2, 4, 8)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.02


def test_engines_give_the_stacks_output():
    torch.manual_seed(0)
    stack, x = measure.Stack(256, 2).eval(), torch.randn(3, 256)
    calls = measure.engines(stack, x)
    assert list(calls) == list(measure.FORMAT_BITS)
    with torch.no_grad():
        expected = stack(x)
        outputs = {name: call(x) for name, call in calls.items()}
    errors = {}
    for name, y in outputs.items():
        y = y if isinstance(y, torch.Tensor) else torch.from_numpy(y[0])
        errors[name] = ((y - expected).norm() / expected.norm()).item()
    assert errors["torch fp32"] == 0
    assert errors["OpenVINO fp32"] < 1e-5
    assert errors["INT8"] < 0.02
    assert errors["INT8"] < errors["INT4"] < 0.2


def test_tokens_a_pass():
    assert measure.tokens_per_pass(0, 4) == 1
    assert measure.tokens_per_pass(1, 4) == 5
    assert measure.tokens_per_pass(0.5, 2) == pytest.approx(1 + 0.5 + 0.25)
    for bad in (0, 65):
        with pytest.raises(ValueError, match="n_draft"):
            measure.tokens_per_pass(0.5, bad)


def absorbed(q, q_turned, c, k_turned, k_up, v_up):
    scores = (q @ k_up) @ c.mT + q_turned @ k_turned.mT
    return ((24**-0.5 * scores).softmax(-1) @ c) @ v_up.mT


def test_libraries_agree_and_what_differs_is_said():
    ours, twins = measure.latent_outputs(absorbed, 12)
    assert [row["library"] for row in measure.compare_twins(ours, twins)] == list(twins)
    wrong, _ = measure.latent_outputs(lambda *parts: 2 * absorbed(*parts), 12)
    with pytest.raises(AssertionError, match="DeepseekV3Attention"):
        measure.compare_twins(wrong, twins)


def test_stdlib_gpt_is_a_gpt2_of_transformers():
    with torch.no_grad():
        theirs = measure.as_gpt2(points.language_model())(TEXT).logits
    measure.compare_twins(theirs, {"efflab.model": points.language_model()(TEXT).detach()})


def test_a_model_accepts_itself_whole():
    assert measure.acceptance(points.language_model(), 1) == pytest.approx(1, abs=1e-5)


def test_acceptance_is_one_less_the_total_variation():
    windows = torch.from_numpy(evaluate.held_out_windows(1, 512))[:, :-1]
    with torch.no_grad():
        p = points.language_model()(windows)[:, 256:].softmax(-1)
    far = (p - 1 / 2048).abs().sum(-1).mean().item() / 2
    flat = measure.acceptance(lambda ids: torch.zeros(*ids.shape, 2048), 1)
    assert flat == pytest.approx(1 - far, abs=1e-4)


def test_serving_is_bound_by_bytes_then_by_arithmetic():
    qwen, h100 = PRESETS["qwen3-8b"], DEVICES["H100 SXM"]
    one = measure.serve(qwen, h100, 4096, 1, "bf16")
    assert one.seconds == one.read / h100.memory_bandwidth
    many = measure.serve(qwen, h100, 128, 2**13, "bf16")
    assert many.seconds > many.read / h100.memory_bandwidth
    assert one.fits
    assert not measure.serve(qwen, DEVICES["RTX 4090"], 2**17, 1, "bf16").fits


def test_the_readers_own_model(tmp_path):
    fields = dict(model_type="llama", hidden_size=64, num_hidden_layers=2, num_attention_heads=4)
    fields |= dict(num_key_value_heads=2, intermediate_size=128, vocab_size=100)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(fields), encoding="utf-8")
    explorer = figures.serving_of(str(path))
    assert explorer.controls["model"].value == str(path)
    assert explorer().layout.meta


def test_tables_and_figures(both_languages):
    both = {32: {"whole text": SLOW, "cached": FAST}, 64: {"whole text": SLOW, "cached": FAST}}
    assert list(figures.token_times(both).layout.meta.values()) == [4]
    caches = {"8 key/value heads": SLOW, "1 key/value head": FAST}
    assert list(figures.cache_times({1024: caches, 2048: caches}).layout.meta.values()) == [0.25]
    assert list(figures.pages({1: 0.0, 16: 1.5}).layout.meta.values()) == [0.0, 1.5]
    times = dict.fromkeys(measure.FORMAT_BITS, FAST)
    assert set(figures.formats(times).layout.meta.values()) == {1}
    batches = {1: {"INT4": FAST}, 4: {"INT4": FAST}}
    assert list(figures.batches(batches).layout.meta.values()) == [4]
    wrong = torch.tensor([0.0, 1.0, 2.0])
    assert list(figures.first_difference({"ours": wrong}).layout.meta.values()) == [1]
    none = figures.first_difference({"ours": wrong * 0}).layout.meta.values()
    assert list(none) == ["–"]


def test_the_explorer(both_languages):
    serving = figures.serving_of("qwen3-8b")
    assert serving.controls["model"].values()[0] == "qwen3-8b"
    fits = serving(context=128, device="H100 SXM")
    tight = serving(context=2**17, batch=256, device="L4")
    assert fits.layout.meta[lab.tr("fits")] == lab.tr("yes")
    assert tight.layout.meta[lab.tr("fits")] == lab.tr("no")
    for bad in (dict(context=0), dict(batch=1.5), dict(device="abacus"), dict(format="int3")):
        with pytest.raises(ValueError, match=next(iter(bad))):
            serving(**bad)


def grouped(q, k, v):
    return scaled_dot_product_attention(q, k, v, enable_gqa=True)


def repeated_wrongly(q, k, v):
    times = q.shape[1] // k.shape[1]
    return scaled_dot_product_attention(q, k.repeat(1, times, 1, 1), v.repeat(1, times, 1, 1))


def accept(p, q, token):
    rest = (p - q).clamp_min(0)
    return min(1.0, (p[token] / q[token]).item()), rest / rest.sum()


def continue_cached(ids, n_new):
    with torch.no_grad():
        caches = [{} for _ in range(6)]
        for t in range(ids.shape[1]):
            logits = measure.step(ids[:, t], t, caches, attend)
        for _ in range(n_new):
            ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], 1)
            logits = measure.step(ids[:, -1], ids.shape[1] - 1, caches, attend)
    return ids


SMALL = dict(window=383, sinks=4, key_bits=4, value_bits=4)
ANSWERS = {
    "16-1": (attend, measure.attend_alone),
    "16-2": (grouped, repeated_wrongly),
    "16-3": (accept, lambda p, q, token: (1.0, p)),
    "16-5": (SMALL, SMALL | dict(window=63)),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_exercises_take_right_answers_and_refuse_wrong_ones(name, strict, both_languages):
    right, wrong = ANSWERS[name]
    lab.check(name, right)
    with pytest.raises(AssertionError):
        lab.check(name, wrong)


def test_a_continuation_has_to_be_equal_and_faster(strict):
    ids = measure.prompt_ids(20)
    assert torch.equal(continue_cached(ids, 3), exercises.continue_plainly(ids, 3))
    with pytest.raises(AssertionError):
        lab.check("16-4", exercises.continue_plainly)
    with pytest.raises(AssertionError):
        lab.check("16-4", lambda ids, n_new: torch.cat([ids, ids[:, :n_new]], 1))


# --- Statements of its own -------------------------------------------------------------------

BYTES = dict(INT8=Estimate(0.26, 0.25, 0.27), INT4=Estimate(0.13, 0.12, 0.14))
SLOW_INT4 = BYTES | dict(INT4=Estimate(0.4, 0.38, 0.42))
KEPT, KEPT_WHOLE = {16: 4096, 4: 1024, 1: 256}, dict.fromkeys((16, 4, 1), 4096)
WORSE, SAME = Estimate(0.3, 0.2, 0.4), Estimate(0.001, -0.001, 0.002)
SINKS = dict(window=WORSE, sinks=SAME, first=WORSE)
NO_SINKS = SINKS | dict(sinks=WORSE, first=SAME)
PAGES = {"16": Estimate(2, 1, 3), "longest": Estimate(75, 70, 80)}
FULL_PAGES = {"16": Estimate(2, 1, 3), "longest": Estimate(10, 5, 20)}


def lost(kinds):
    return {kind: dict.fromkeys(verdicts.WINDOWS, one) for kind, one in kinds.items()}


def passes(tokens):
    return verdicts.speculation_evidence({2: tokens, 6: tokens}, lambda n: 2.0, 1e-7)


DRIVES = [
    ("decoding-bytes", verdicts.bytes_evidence(BYTES, KEPT), "holds holds holds"),
    (
        "decoding-bytes",
        verdicts.bytes_evidence(SLOW_INT4, KEPT_WHOLE),
        " ".join(["does not hold"] * 3),
    ),
    ("decoding-cache", verdicts.cache_evidence(lost(SINKS), PAGES), "holds holds holds"),
    (
        "decoding-cache",
        verdicts.cache_evidence(lost(NO_SINKS), FULL_PAGES),
        "does not hold undecided undecided",
    ),
    ("decoding-speculation", passes(Estimate(2, 1.9, 2.1)), "holds holds"),
    ("decoding-speculation", passes(Estimate(2, 1.1, 3)), "undecided holds"),
    ("decoding-speculation", passes(Estimate(9, 8, 10)), "does not hold holds"),
]


def judge(name, evidence):
    return getattr(verdicts, name.replace("-", "_"))(evidence)


@pytest.mark.parametrize(("name", "evidence", "words"), DRIVES)
def test_a_statement_is_judged_part_by_part(name, evidence, words):
    assert " ".join(part.outcome for part in judge(name, evidence).parts) == words


def test_another_distribution_does_not_hold():
    evidence = verdicts.speculation_evidence({2: SAME, 6: SAME}, lambda n: 1.0, 1e-3)
    assert judge("decoding-speculation", evidence).parts[1].outcome == "does not hold"


def test_what_is_stored_follows_from_its_figures_by_registered_rules():
    stored = json.loads((ROOT / "data" / "statements.json").read_text(encoding="utf-8"))["16"]
    own = [name for name, item in load_statements().items() if item["notebook"] == "16"]
    assert [record["claim"] for record in stored] == own
    for record in stored:
        again = judge(record["claim"], figures_of(record).values()).record(record["claim"])
        assert again == record
        bases = {part["basis"] for part in record["parts"]}
        assert bases <= {"registered", "formula"}
    page = ledger.page()
    assert all(f"### {name}\n" in page.split("## Beside the article")[1] for name in own)
    assert not load_statements().keys() & ledger.verdicts().keys()


def test_what_is_measured_is_what_the_rules_registered():
    rules = read_rules()
    settings = rules["decoding-bytes"]["int4-faster"]["source"]["settings"]
    assert settings == dict(width=measure.WIDTH, n_pairs=measure.N_BLOCKS)
    settings = rules["decoding-cache"]["sinks-repair"]["source"]["settings"]
    assert settings["windows"] == list(verdicts.WINDOWS)
