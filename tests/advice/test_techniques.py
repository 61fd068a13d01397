"""Each technique's gains in cases whose answer is known: by hand, from a paper or from a record."""

from dataclasses import FrozenInstanceError, replace

import pytest

from efflab import cost, layers
from efflab.advice import acceleration, compression, distributed, engines, recorded, structure
from efflab.advice.case import BUDGETS, SERVING, Case
from efflab.advice.engines import DYNAMIC, STATIC
from efflab.advice.technique import Gain, Loss, Technique
from efflab.compression.packed import model_bytes, quantize_weights
from efflab.config import PRESETS
from efflab.devices import DEVICES
from efflab.distributed.split import Split
from efflab.model import Transformer
from efflab.structure.pairs import computed_pairs

A100 = "A100 80GB SXM"


def case(model="bert-base", device=A100, budget="latency", **options):
    return Case(model, device, budget, **options)


# --- The form --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ((0.0, 1.0, "computed", "x"), "low=0.0"),
        ((2.0, 1.0, "computed", "x"), "high=1.0"),
        ((1.0, 2.0, "guessed", "x"), "kind='guessed'"),
        ((1.0, 2.0, "computed", ""), "source=''"),
    ],
)
def test_a_gain_without_order_kind_or_source_is_refused(wrong, word):
    with pytest.raises(ValueError, match=word):
        Gain(*wrong)


def test_a_computed_gain_puts_its_ends_in_order():
    assert Gain.computed(3.0, "x") == Gain(3.0, 3.0, "computed", "x")
    assert Gain.computed(3.0, "x", 2.0) == Gain(2.0, 3.0, "computed", "x")


def test_advice_that_is_handed_on_stays_as_it_was():
    gain, loss = Gain.computed(3.0, "x"), Loss(1.0, "m", "recorded", "s")
    technique = Technique("t", "01", dict.fromkeys({*BUDGETS, *SERVING} - {"quality"}, "no"))
    for made, name in ((gain, "low"), (loss, "value"), (technique, "name")):
        with pytest.raises(FrozenInstanceError):
            setattr(made, name, 0)


def test_a_technique_speaks_of_every_budget():
    with pytest.raises(ValueError, match="budgets"):
        Technique("t", "01", {"latency": "no"})


def test_the_most_that_is_lost_is_the_intervals_end():
    assert Loss(1.0, "m", "recorded", "s").most == 1.0
    assert Loss(1.0, "m", "recorded", "s", 0.5, 2.0).most == 2.0


# --- Structure -------------------------------------------------------------------------------


def test_albert_saves_parameters_and_no_flops():
    shared, albert = structure.sharing(case()), structure.albert(case())
    assert shared.budgets["checkpoint"].low == pytest.approx(3.47, abs=0.01)
    assert albert.budgets["checkpoint"].low == pytest.approx(9.32, abs=0.01)
    assert 1 < shared.budgets["memory"].low < shared.budgets["checkpoint"].low
    assert "every layer still runs" in shared.budgets["latency"]
    assert shared.structural
    assert albert.structural
    config = PRESETS["bert-base"]
    logits = 2 * 512 * config.vocab_size * (768 - 128) - 2 * 2 * 512 * 768 * 128
    days = albert.budgets["training days"].low
    assert days == pytest.approx(case().flops / (case().flops - logits))  # narrow logits alone
    assert albert.loss.value == pytest.approx(100 * (1 - 80.1 / 82.3))
    assert structure.albert(case("gpt2")).loss is None
    assert "already" in structure.albert(case("albert-base")).budgets["checkpoint"]


def test_windows_gain_what_the_scores_cost():
    short, long = (structure.window(case("gpt3-1.3b", seq_len=n)) for n in (64, 2048))
    assert "short" in short.budgets["latency"]
    parts = cost.flops_by_part(PRESETS["gpt3-1.3b"], 2048)
    without = sum(parts.values()) / (sum(parts.values()) - parts["scores"])
    assert 1 < long.budgets["training days"].low < without
    assert long.budgets["checkpoint"] == "no weights are removed"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (dict(n_layer=1), structure.NONE_TO_SHARE),
        (dict(share="all"), structure.SHARED),
        (dict(vocab_size=10**8, d_model=8, d_ff=8, n_head=1), structure.NONE_TO_SHARE),
    ],
)
def test_why_nothing_can_be_shared(changes, reason):
    shape = replace(PRESETS["bert-base"], **changes)
    assert structure.sharing(case(shape)).budgets["checkpoint"] == reason


@pytest.mark.parametrize(
    ("own", "tokens", "reason"),
    [(None, 16, structure.SHORT), (32, 512, structure.NARROW), (32, 16, structure.SHORT)],
)
def test_why_a_window_saves_nothing(own, tokens, reason):
    shape = PRESETS["bert-base"]
    if own:
        shape = replace(shape, attention=replace(shape.attention, windows=(own,)))
    found = structure.window(case(shape, seq_len=tokens))
    assert found.budgets["training days"] == reason


@pytest.mark.parametrize("model", ["bert-base", "gpt2"])
def test_a_window_looks_back_alone_where_the_model_does(model):
    asked = case(model)
    config = asked.config
    pairs = computed_pairs(asked.tokens, structure.WINDOW, causal=config.causal)
    flops = asked.flops - cost.flops_by_part(config, asked.tokens)["scores"]
    flops += 4 * config.n_layer * config.d_model * pairs
    days = structure.window(asked).budgets["training days"]
    assert days.low == pytest.approx(asked.flops / flops)


def test_what_looks_ahead_is_no_advice_for_a_causal_model():
    for made in (structure.bigbird, structure.linformer):
        assert "causal" in made(case("gpt2")).budgets["latency"]
    long = structure.linformer(case("bert-base"))
    assert "short" in structure.bigbird(case("bert-base")).budgets["latency"]
    # 256 summaries of 512 tokens: each product is as long as half the scores, and one more makes it
    assert "short" in long.budgets["latency"]


# --- Acceleration ----------------------------------------------------------------------------


def test_mixed_precision_by_roofline_and_by_papers():
    a100, v100 = (acceleration.mixed_precision(case(device=d)) for d in (A100, "V100 SXM2"))
    assert (a100.budgets["latency"].low, a100.budgets["latency"].high) == (
        pytest.approx(2.0),
        pytest.approx(16.0),
    )
    assert v100.budgets["latency"].low == v100.budgets["latency"].high
    days = a100.budgets["training days"]
    assert (days.kind, round(days.low, 2), round(days.high, 2)) == ("published", 1.59, 1.93)
    assert (
        acceleration.mixed_precision(case(device="H100 SXM")).budgets["training days"].kind
        == "computed"
    )
    assert 1 < a100.budgets["memory"].low < 2
    assert a100.budgets["checkpoint"].low == 2


def test_a_device_of_ones_own_has_no_published_speed_whatever_it_is_called():
    known = acceleration.mixed_precision(case("bert-base", "V100 SXM2", "training days"))
    assert known.budgets["training days"].kind == "published"
    own = replace(DEVICES["V100 SXM2"], name="V100 of mine")
    gain = acceleration.mixed_precision(case("bert-base", own, "training days"))
    assert gain.budgets["training days"].kind == "computed"


def test_a_text_of_one_token_gains_what_its_weights_take_to_read():
    latency = acceleration.mixed_precision(case(seq_len=1)).budgets["latency"]
    assert latency.low == latency.high == pytest.approx(2.0)


def test_a_cpu_without_bf16_is_not_told_to_use_it():
    with_vnni, without = (
        acceleration.mixed_precision(case(device=f"CPU {which} VNNI"))
        for which in ("with", "without")
    )
    assert with_vnni.budgets["latency"].low > 1
    assert "slower" in without.budgets["latency"]
    assert "not faster" in without.budgets["training days"]


@pytest.mark.parametrize(("low", "faster"), [(1.0, False), (1.01, True)])
def test_as_fast_as_before_is_no_gain(monkeypatch, low, faster):
    recorded_gain = Gain(low, 2.0, "recorded", "a record")
    monkeypatch.setattr(engines, "gain", lambda case, engine: recorded_gain)
    latency = acceleration.mixed_precision(case(device="CPU with VNNI")).budgets["latency"]
    assert latency == (recorded_gain if faster else "this CPU has no bf16 products: it was slower")


def test_what_computes_the_same_loses_nothing():
    for made in (acceleration.compilation(case()), *distributed.techniques(case())):
        assert (made.loss.value, made.loss.most) == (0, 0)


def test_a_compiler_has_a_number_only_where_one_was_recorded():
    gpu = acceleration.compilation(case()).budgets["latency"]
    assert gpu == "no number was recorded for this device"


@pytest.mark.parametrize("old", [1.5, 3.0])
def test_a_compiler_is_no_advice_where_it_was_slower(old, monkeypatch):
    values = {"inductor": 2.0, "torch": old}
    items = {key: dict(value=v, low=v - 0.5, high=v + 0.5) for key, v in values.items()}
    monkeypatch.setattr(recorded, "evidence", lambda notebook, claim, key: items[key])
    latency = acceleration.compilation(case(device="CPU with VNNI")).budgets["latency"]
    if old < 2:
        assert "not faster" in latency
    else:
        assert (latency.low, latency.high) == (1.0, pytest.approx(3.5 / 1.5))


# --- Compression -----------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "group_size"), [(8, None), (4, 64)])
def test_packed_bytes_are_those_of_a_packed_model(bits, group_size):
    config = PRESETS["stdlib-gpt"]
    model = Transformer(config)
    grid = (
        dict(symmetric=True, axis=0)
        if group_size is None
        else dict(symmetric=False, group_size=group_size)
    )
    made = quantize_weights(model, bits, embeddings=False, **grid)
    made |= {k: q for k, q in quantize_weights(model, 8, axis=0).items() if "embedding" in k}
    found = compression.packed_bytes(config, bits, group_size=group_size)
    assert found == model_bytes(model, made)


def test_int8_by_kind_of_cpu_and_peak():
    made = {
        d: compression.int8(case(device=d), STATIC)
        for d in (A100, "V100 SXM2", "CPU with VNNI", "CPU without VNNI")
    }
    assert made["CPU with VNNI"].budgets["latency"].low > 2
    slow = made["CPU without VNNI"].budgets["latency"]
    assert slow.low < 1 < slow.high
    assert made["V100 SXM2"].budgets["latency"] == "no int8 peak is known for this device"
    assert made[A100].budgets["latency"].low == pytest.approx(4.0)
    dynamic = {d: compression.int8(case(device=d), DYNAMIC).budgets for d in made}
    assert "CPUs" in dynamic[A100]["latency"]
    assert dynamic["CPU without VNNI"]["latency"].low > 1
    static = made[A100].budgets["checkpoint"]
    assert 3.8 < static.low < 4
    assert dynamic[A100]["checkpoint"].low < static.low


def test_an_engine_gains_less_where_it_covers_less():
    """Amdahl: of a language model's long text the scores and logits stay."""
    device = "CPU with VNNI"
    short, long = (case("gpt2", device, seq_len=n) for n in (64, 1024))
    for engine in engines.COVERED:
        share = [engines.coverage(engines.parts(c), engine) for c in (short, long)]
        assert share[1] < share[0] < 1 or engine == engines.DYNAMIC
        fast = min(engines.times(engine, device))
        assert engines.gain(long, engine).high == pytest.approx(
            1 / (1 - share[1] + share[1] * fast)
        )
        assert engines.gain(long, engine).high < 1 / fast
    assert engines.coverage(engines.parts(long), "bf16 eager") == 1


@pytest.mark.parametrize("model", ["bert-base", "gpt2", "albert-base"])
def test_an_engines_parts_are_all_of_a_text(model):
    asked = case(model)
    found = engines.parts(asked)
    assert sum(found.values()) == asked.flops
    pairs = asked.tokens**2
    assert found["scores"] == 4 * pairs * asked.config.n_layer * asked.config.d_model


def test_pruning_gains_by_shapes_and_masks_do_not():
    removed, masked = compression.neurons(case()), compression.masks(case())
    assert 1 < removed.budgets["latency"].low < 1.34
    assert 1 < removed.budgets["checkpoint"].low < 1.2
    assert all(isinstance(why, str) for why in masked.budgets.values())


# --- Several devices -------------------------------------------------------------------------


def test_one_device_has_nothing_to_split():
    for technique in distributed.techniques(case(budget="training days")):
        assert technique.budgets["training days"] == "there is one device"


def test_devices_share_the_days_and_zero_the_memory():
    asked = case("gpt3-1.3b", budget="training days", n_devices=8)
    ddp, zero, plan = distributed.techniques(asked)
    assert 7 < ddp.budgets["training days"].low <= 8
    assert plan.budgets["training days"].low >= ddp.budgets["training days"].low
    assert plan.budgets["training days"].source.endswith("(tp=1,pp=1,dp=8)")
    state = 16 * asked.n_params
    kept = asked.training_bytes() - state
    assert zero.budgets["memory"].low == pytest.approx((state + kept) / (state / 8 + kept))
    assert "each device" in ddp.budgets["memory"]


def test_zero_takes_days_where_what_a_device_computes_fits():
    def days(made, n_devices):
        asked = case("gpt3-175b", budget="training days", n_devices=n_devices)
        return made(asked).budgets["training days"]

    assert "does not fit" in days(distributed.ddp, 64)
    assert 1 < days(distributed.zero, 64).low < days(distributed.plan, 64).low <= 64
    assert days(distributed.zero, 2).startswith("activations do not fit a device")


def test_a_huge_model_needs_more_than_data_parallelism():
    asked = case("gpt3-175b", budget="memory", n_devices=64)
    ddp, _, plan = distributed.techniques(asked)
    assert "does not fit" in ddp.budgets["training days"]
    assert plan.budgets["memory"].low > 30
    days = distributed.plan(case("gpt3-175b", budget="training days", n_devices=64))
    assert days.budgets["training days"].low > plan.budgets["training days"].low
    few = distributed.plan(case("gpt3-175b", budget="memory", n_devices=2))
    assert "no split" in few.budgets["memory"]


def test_plain_data_parallelism_splits_the_batch_alone():
    run = distributed.training(case("gpt3-6.7b", n_devices=64))
    found = distributed.plain_data_parallel(run, 64, 3)
    assert (found.tp, found.pp, found.dp) == (1, 1, 64)
    assert distributed.best(run, 64).step_seconds < found.step_seconds  # and is not taken
    large = distributed.training(case("gpt3-175b", n_devices=64))
    assert distributed.plain_data_parallel(large, 64) is None


def test_memory_is_compared_with_one_device_that_recomputes_as_much():
    asked = case("gpt3-1.3b", budget="memory", n_devices=8)
    run = distributed.training(asked)
    lean = distributed.best(run, 8, lean=True)
    assert lean.recompute == "full"
    alone = run.memory_bytes(Split(1, 1, 1, distributed.GLOBAL_BATCH, recompute="full"))
    found = distributed.plan(asked).budgets["memory"].low
    assert found == pytest.approx(alone / lean.memory_bytes)


# --- Records ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "base", "point", "lost"),
    [
        ("stdlib-gpt", 2.0, (2.1, 1.9, 2.2), (5, -5, 10)),  # more bits are a loss
        ("MiniLM-L6", 0.8, (0.6, 0.4, 0.84), (25, -5, 50)),
    ],
)
def test_a_loss_and_its_ends_are_per_cent_of_the_baseline(monkeypatch, model, base, point, lost):
    names = ("quality", "quality_low", "quality_high")
    board = [dict(technique="baseline", model=model, quality=base)]
    board.append(dict(technique="t", model=model) | dict(zip(names, point, strict=True)))
    monkeypatch.setattr(recorded, "_board", lambda: board)
    found = recorded.board_loss("t", model)
    assert (found.value, found.low, found.high) == pytest.approx(lost)


def test_records_are_read_by_name_and_unknown_ones_refused():
    assert recorded.board_loss("8-bit weights, per channel").value < 0.2
    assert recorded.board_loss("1/3 of the heads removed", "MiniLM-L6").value > 0
    assert 0 < recorded.gptq_loss(4, 64).value < recorded.gptq_loss(3, 64).value < 50
    assert recorded.mixed_training_gain("H100 SXM") is None
    with pytest.raises(ValueError, match="technique='x'"):
        recorded.board_point("x", "stdlib-gpt")
    with pytest.raises(ValueError, match="engine='x'"):
        recorded.engine_row("x", "CPU with VNNI")
    with pytest.raises(ValueError, match="device='A100"):
        recorded.engine_row("fp32 eager", A100)


def test_evidence_is_read_by_id_and_there_is_none_before_its_notebook_is_built(monkeypatch):
    figure = dict(id="torch", value=0.5)
    built = {"07": [dict(claim="xla-fusion", parts=[dict(figures=[figure])])]}
    monkeypatch.setattr(recorded, "_verdicts", lambda: built)
    assert recorded.evidence("07", "xla-fusion", "torch") == figure
    with pytest.raises(ValueError, match="key='x'"):
        recorded.evidence("07", "xla-fusion", "x")
    assert recorded.evidence("06", "amp-speed", "bf16-here") is None
    asked = case("bert-base", device="CPU with VNNI", budget="latency")
    monkeypatch.setattr(recorded, "_verdicts", dict)
    assert acceleration.compilation(asked).budgets["latency"] == acceleration.NO_NUMBER
    days = acceleration.mixed_precision(asked).budgets["training days"]
    assert days == acceleration.NO_NUMBER


def test_every_chapter_answers_every_budget():
    chapters = (structure, acceleration, compression, distributed)
    found = [t for chapter in chapters for t in chapter.techniques(case())]
    assert len({t.name for t in found}) == len(found) == 15
    assert all(set(t.budgets) | {"quality"} == {*BUDGETS, *SERVING} for t in found)


# --- Today's models --------------------------------------------------------------------------


def test_maps_and_tables_are_all_but_norms_biases_and_routers():
    def rest(name):
        config = PRESETS[name]
        return cost.num_params(config) - sum(
            count(config)[0] for count in (compression.map_weights, compression.table_weights)
        )

    assert rest("qwen3-8b") == 36 * (2 * 4096 + 2 * 128) + 4096
    assert rest("deepseek-v3") == 61 * (2 * 7168 + 1536 + 512) + 7168 + 58 * 256 * 7168
    biases = 4096 + 2 * 512 + 2880 + 32 * (2 * 2880 + 2880)
    assert rest("gpt-oss-20b") == 24 * (biases + 64 + 2 * 2880 + 32 * 2881) + 2880


def test_every_map_has_a_row_for_each_output():
    def rows(name):
        return compression.map_weights(PRESETS[name])[1]

    assert rows("qwen3-8b") == 36 * (4096 + 2 * 1024 + 4096 + 2 * 12288 + 4096)
    attention = 1536 + 128 * 192 + 576 + 128 * 256 + 7168
    experts = 58 * 257 * (2 * 2048 + 7168)
    assert rows("deepseek-v3") == 61 * attention + 3 * (2 * 18432 + 7168) + experts
    assert compression.table_weights(PRESETS["llama-3.1-70b"]) == (2 * 128256 * 8192, 2 * 128256)
    relative = replace(PRESETS["gpt2"], positions="relative", position_rows=64)
    assert compression.table_weights(relative) == ((50257 + 64) * 768, 50257 + 64)


def test_a_models_own_windows_are_not_computed_in_full():
    asked = case("gpt-oss-20b", seq_len=4096)
    parts = cost.flops_by_part(asked.config, 4096)
    pairs = 12 * (4096**2 + computed_pairs(4096, 127, causal=True))
    scores = 2 * pairs * 2 * 64 * 64
    assert asked.flops == sum(parts.values()) - parts["scores"] + scores
    lighter = structure.window(asked).budgets["training days"]
    assert lighter.low == pytest.approx(
        asked.flops / (asked.flops - scores + 24 * scores * computed_pairs(4096, 64, True) / pairs)
    )


def test_neurons_leave_every_expert():
    asked = case("deepseek-v3")
    maps = compression.map_weights(asked.config)[0] - 61 * layers.attention_weights(asked.config)
    found = compression.neurons(asked).budgets["checkpoint"].low
    assert found == pytest.approx(asked.n_params / (asked.n_params - maps / 4))


def test_a_summary_has_no_distances():
    far = replace(PRESETS["bert-base"], positions="alibi")
    assert "distances" in structure.linformer(case(far)).budgets["latency"]
    assert "short" in structure.bigbird(case(far)).budgets["latency"]
