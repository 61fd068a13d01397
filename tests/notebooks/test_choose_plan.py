"""Notebook 15: advice, light structures, splits, what to change first, predictions, the game."""

import json
from statistics import fmean

import pytest

from efflab import lab
from efflab.advice import predictions
from efflab.advice.case import BUDGETS, SERVING
from efflab.advice.ranking import advise
from efflab.experiments import budget_game, profile_first
from efflab.lab.outcome import OUTCOMES
from efflab_rooms.choose_plan import figures, measure, verdicts

A100 = "A100 80GB SXM"
MINE = dict(n_bytes=1_500_000, fits=True, bits=1.06, flops=3e9, time=0.5)


# --- Advice ----------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", BUDGETS)
def test_advice_and_refusals_are_every_technique_once(budget, both_languages):
    rows = advise("bert-base", A100, budget, n_devices=8)
    names = [row["technique"] for row in rows]
    assert len(set(names)) == len(names) == 15
    good, bad = ([row for row in rows if row["serves"] == serves] for serves in (True, False))
    assert all(row["source"] for row in good)
    assert all(row["why"] for row in bad)
    lab.table([{"technique": row["technique"], "metric": row["metric"]} for row in good])
    lab.table([{"technique": row["technique"], "why not": row["why"]} for row in bad])


def test_the_plans_explorer_follows_its_controls(both_languages):
    one, many = (list(figures.plan(n).layout.meta.values()) for n in (1, 64))
    assert many[0] > one[0]
    assert many[1] > one[1]
    for device in ("CPU with VNNI", "CPU without VNNI"):
        fig = figures.plan(1, "stdlib-gpt", device, "latency")
        drawn = sum(len(trace.y) for trace in fig.data)
        assert drawn == next(iter(fig.layout.meta.values()))
    with pytest.raises(ValueError, match="n_devices=2"):
        figures.plan(2, "gpt2-xl", "CPU with VNNI")


@pytest.mark.parametrize("model", ["bert-base", "gpt3-1.3b", "qwen3-8b"])
@pytest.mark.parametrize("budget", SERVING)
def test_serving_a_model_is_a_budget_too(model, budget, both_languages):
    rows = advise(model, A100, budget, n_devices=8)
    lab.table([{"technique": row["technique"], "why not": row["why"]} for row in rows])
    n_serving, best = figures.plan(8, model, A100, budget).layout.meta.values()
    assert n_serving == sum(row["serves"] for row in rows)
    # an encoder writes no tokens
    assert (best > 1) == (n_serving > 0) == (model != "bert-base")


def test_a_reason_with_numbers_is_translated_in_a_table(both_languages, capsys):
    rows = advise("gpt3-6.7b", A100, "decode", n_devices=3)
    odd = [row for row in rows if row["why"].startswith("3 devices do not divide")]
    assert odd
    lab.table([{"why not": row["why"]} for row in odd])
    assert ("3 台设备" in capsys.readouterr().out) == (lab.text.language() == "zh")


def test_what_nothing_serves_is_still_a_picture(monkeypatch, both_languages):
    monkeypatch.setattr(figures, "_advice", lambda *_: [])
    assert list(figures.plan().layout.meta.values()) == [0, 0.0]


# --- Light structures ------------------------------------------------------------------------


def test_a_lead_is_the_best_structure_over_the_best_other():
    assert measure.lead("bert-base", "checkpoint") > 1 > measure.lead("bert-base", "latency")
    assert measure.lead("bert-base", "quality") == 0
    for model in measure.MODELS:
        for budget in BUDGETS:
            first = advise(model, A100, budget)[0]
            assert first["structure"] == (measure.lead(model, budget) > 1)


def test_windows_of_an_image_by_hand():
    side = 56  # 14 x 14 tokens
    projections = 8 * 196 * 96**2
    assert verdicts.image_flops(side, windowed=False) == projections + 4 * 196**2 * 96
    assert verdicts.image_flops(side, windowed=True) == projections + 4 * 49 * 196 * 96
    lead = verdicts.image_flops(224, windowed=False) / verdicts.image_flops(224, windowed=True)
    assert lead == pytest.approx(13.8, abs=0.05)


def test_leads_are_drawn(both_languages):
    *models, zeros = figures.leads().data
    assert len(models) == 4
    assert all(len(dots.x) == 5 for dots in models)
    assert all(dots.mode == "markers" for dots in models)  # a bar on a log axis has no base
    assert list(zeros.text) == ["0"]
    assert list(zeros.y) == [lab.tr("quality")]


# --- Splits ----------------------------------------------------------------------------------


def test_borders_are_where_the_fastest_plans_turn(monkeypatch):
    class Plan:
        def __init__(self, tp, pp):
            self.tp, self.pp = tp, pp

    def borders(*shapes):
        plans = [(i + 1, Plan(*shape)) for i, shape in enumerate(shapes)]
        monkeypatch.setattr(measure, "plans", lambda *_: plans)
        return measure.borders(8)

    assert borders((1, 1), (1, 1), (2, 1), (2, 2)) == (2, 4)
    assert borders((2, 1), (1, 1), (1, 2), (2, 1)) == (0, 0)
    assert borders((1, 1)) == (1, 0)
    assert borders((1, 2), (1, 2)) == (0, 1)


def test_what_fits_is_replicated_and_the_share_of_data_parallelism_falls_with_size():
    for n in measure.COUNTS:
        plan, share = measure.choose("gpt2", n)
        assert (plan.tp, plan.pp, plan.dp, share) == (1, 1, n, 1)
    plan, share = measure.choose("gpt3-175b", 512)
    assert plan.pp > 1
    assert 0 < share < 0.5
    assert measure.choose("310.1 B", 64)[1] == 0  # it does not fit alone
    assert measure.choose("gpt3-175b", 8) is None


def test_a_count_that_layers_do_not_divide_leaves_zero_3_alone():
    odd, _ = measure.choose("529.6 B", 512, 2048)
    assert (odd.tp, odd.pp, odd.dp, odd.zero_stage) == (1, 1, 512, 3)
    even, share = measure.choose("529.6 B", 560, 2240)
    assert even.pp == 35
    assert even.mfu > 1.5 * odd.mfu
    assert share < 1


def test_grids_leave_out_what_does_not_fit():
    huge = verdicts.huge_grid()
    assert len(huge[64, 512]) == 2  # a trillion parameters do not fit 64 devices
    assert len(huge[512, 512]) == 3
    assert len(huge[560, 2240]) == 1
    assert len(verdicts.small_grid()) == len(measure.COUNTS) * len(verdicts.BATCHES)


def test_plans_in_words():
    assert measure.words(None) == "-"
    assert measure.words(measure.fastest("gpt2", 64)) == "1x1x64"
    assert measure.words(measure.fastest("145.6 B", 64)) == "4x8x2/5 z1"


def test_plans_are_listed_and_explored(both_languages):
    small, *_, huge = (measure.fastest(name, 8) for name in measure.models())
    assert (small.tp, small.pp, small.dp) == (1, 1, 8)
    assert huge is None
    fig = figures.splits(8, 512)
    assert list(fig.layout.meta.values()) == [7.47, 18.45, 7]
    many = list(figures.splits(512, 512).layout.meta.values())
    assert many[:2] == [3.56, 1008.04]
    assert [len(trace.x) for trace in fig.data] == [7, 7, 7]


# --- What to change first ----------------------------------------------------------------------


def test_a_recorded_shape_is_the_mean_of_its_processes():
    shape = measure.first_of(384, 1024)
    runs = [r for r in measure.first_runs() if (r["width"], r["n_tokens"]) == (384, 1024)]
    assert len(runs) == len(profile_first.SEEDS)
    head = shape["time"]["head"]
    assert head.mean == pytest.approx(fmean(run["time"]["head"] for run in runs))
    assert head.low < head.mean < head.high
    assert sum(share.mean for share in shape["shares"].values()) == pytest.approx(1, abs=0.05)
    largest = max(shape["flops"], key=shape["flops"].get)
    assert shape["choices"]["count"] == {largest: len(runs)}
    assert shape["choices"]["profile"].total() == len(runs)


@pytest.mark.parametrize("width", profile_first.WIDTHS)
@pytest.mark.parametrize("tokens", profile_first.LENGTHS)
def test_every_shape_is_drawn(width, tokens, both_languages):
    fig, shape = figures.first_change(width, tokens), measure.first_of(width, tokens)
    flops, shares, times = fig.data
    assert list(flops.y) == [100 * share for share in shape["flops"].values()]
    assert list(shares.y) == [100 * share.mean for share in shape["shares"].values()]
    assert list(times.y) == [time.mean for time in shape["time"].values()]
    assert all(up > 0 for up in times.error_y.array)
    profile, count, ratio = fig.layout.meta.values()
    for words, who in ((profile, "profile"), (count, "count")):
        part, n = shape["choices"][who].most_common(1)[0]
        assert words.startswith(f"{lab.tr(part)} {n}/5")
        assert words in fig.layout.title.text
    assert ratio == round(shape["rival"], 3)


def test_a_shape_that_was_not_recorded_is_refused():
    with pytest.raises(ValueError, match="width=256: expected one of"):
        figures.first_change(256, 128)


def test_rivals_are_drawn_as_the_verdict_has_them(both_languages):
    fig, evidence = figures.rivals(), {e.id: e for e in verdicts.own_profile_evidence()}
    one, two = fig.data
    assert len(one.x) == len(two.x) == 10
    assert set(one.x) == {e.value for key, e in evidence.items() if key.startswith("rival-")}
    ties = [x == 1 for x in one.x]
    assert any(ties)
    assert [symbol == "circle-open" for symbol in one.marker.symbol] == ties
    assert list(fig.layout.meta.values()) == [round(evidence["differ"].value, 1)]


# --- Predictions -----------------------------------------------------------------------------


@pytest.fixture
def made_up(monkeypatch):
    """Three sizes, of which one is predicted in the wrong place, and a quality alone."""
    rows = [
        dict(
            what="size",
            stage="as shipped",
            engine=str(i),
            predicted=p,
            measured=m,
            speed=None,
            least=p,
            most=p,
            low=m - 0.01,
            high=m + 0.01,
            error=p / m - 1,
        )
        for i, (p, m) in enumerate([(1.0, 1.0), (0.5, 0.4), (0.4, 0.5)])
    ]
    rows.append(rows[0] | dict(what="quality"))
    monkeypatch.setattr(predictions, "predictions", lambda *device: rows)
    return rows


def test_predictions_are_summed_up_and_drawn(made_up, both_languages):
    size, quality = predictions.summary(made_up)
    assert (size["predictions"], size["pairs"]) == (3, 3)
    assert (size["right"], size["wrong"], size["untold"]) == (2, 1, 0)
    assert size["middle"] == 2
    assert size["largest_error"] == pytest.approx(0.223, abs=0.001)
    assert quality["pairs"] == 0
    fig = figures.prediction_figure()
    assert list(fig.layout.meta.values()) == [3, 2, 1]
    (wrong,) = wrong_pairs(made_up)
    assert [row["engine"] for row in wrong["rows"]] == ["1", "2"]
    assert wrong["is_right"] is False


def wrong_pairs(rows):
    """Pairs that the predictions' middles have in the wrong order."""
    return [p for p in predictions.pairs(rows) if (p["predicted"] > 1) != (p["measured"] > 1)]


def test_the_records_hold_pairs_that_a_bolder_plan_has_in_the_wrong_order():
    found = wrong_pairs(predictions.predictions("CPU with VNNI"))
    assert found
    assert {pair["is_right"] for pair in found} == {None}


# --- The game --------------------------------------------------------------------------------


def test_moves_come_from_a_dict_and_unknown_ones_are_named(monkeypatch):
    monkeypatch.setattr(budget_game, "play", lambda **moves: budget_game.Moves(**moves))
    moves = measure.play(dict(ffn=[4, 4, 4, 4, 5, 5], method="gptq"))
    assert (moves.ffn, moves.method) == ((4, 4, 4, 4, 5, 5), "gptq")
    with pytest.raises(
        ValueError, match=r"moves=\['magic'\]: expected one of act_order, attention"
    ):
        measure.play(dict(magic=1))


def test_the_readers_entry_takes_its_place(both_languages):
    first = budget_game.entries()[0]["entry"]
    assert measure.game_rows()[0]["entry"] == measure.SHOWN.get(first, first)
    rows = measure.game_rows(MINE)
    assert (rows[0]["entry"], rows[0]["place"]) == ("yours", 1)
    late = measure.game_rows(MINE | dict(bits=1.3))
    assert [row["entry"] for row in late if row["fits"]][-1] == "yours"
    lab.table(rows)
    assert len(figures.game(MINE).data) == 4  # sizes and bits, recorded and the reader's own
    assert len(figures.game().data) == 2


@pytest.mark.release  # the notebook plays them
def test_the_notebooks_own_moves_play():
    """The game, played by the notebook's text alone."""
    from efflab.publishing.catalog import sources
    from efflab.publishing.source import read_source

    (cell,) = [
        c.source
        for c in read_source(sources()["15"]).cells
        if c.cell_type == "code" and "moves = dict(" in c.source
    ]
    line = next(text for text in cell.splitlines() if text.startswith("moves = "))
    moves = eval(line.removeprefix("moves = "))
    score = measure.play(moves)
    assert score["fits"]
    assert score["bits"] < 1.09


# --- The end ---------------------------------------------------------------------------------


def test_every_claim_has_a_line_in_the_ledger(both_languages):
    rows = measure.ledger_rows()
    assert [row["claim"] for row in rows] == list(lab.load_claims())
    fig = figures.ledger()
    assert sum(fig.layout.meta.values()) == len(rows)
    assert sum(sum(bar.y) for bar in fig.data) == len(rows)
    lab.table(rows)


def test_a_claim_that_no_notebook_judged_says_so(monkeypatch, tmp_path, both_languages):
    figure = dict(id="n", name="n", value=1, unit="", kind="computed", low=None, high=None)
    part = dict(id="p", outcome="holds", rule="n is 1", condition="", remark="", reason="")
    part |= dict(basis="formula", since=None, figures=[figure])
    record = dict(form=3, claim="attention-quadratic", holds=True, outcome="holds", parts=[part])
    (tmp_path / "verdicts.json").write_text(json.dumps({"00": [record]}))
    monkeypatch.setattr(measure, "DATA_DIR", tmp_path)
    found = measure.outcomes()
    assert found.pop("attention-quadratic") == "holds"
    assert set(found.values()) == {measure.NOT_YET}
    assert list(figures.ledger().layout.meta.values()) == [1, len(found)]


def test_the_ledgers_bars_have_the_cards_colours(monkeypatch, both_languages):
    all_of_them = [*OUTCOMES, measure.NOT_YET]
    claims = zip(lab.load_claims(), all_of_them, strict=False)
    monkeypatch.setattr(measure, "outcomes", lambda: dict(claims))
    bars = figures.ledger().data
    assert [bar.marker.color for bar in bars[:-1]] == [look[-1] for look in OUTCOMES.values()]
    assert bars[-1].marker.color not in {look[-1] for look in OUTCOMES.values()}
    looks = [(bar.marker.color, bar.marker.pattern.shape) for bar in bars]
    assert len(set(looks)) == len(looks)


def test_guesses_are_calibrated_where_there_are_some(both_languages):
    example = figures.calibration([])
    assert list(example.layout.meta.values()) == [0]
    assert lab.tr("simulated") in example.layout.title.text
    assert len(example.data[-1].x) == len(figures.EXAMPLE)
    some = [dict(notebook="03", question="q", guess=g, measured=10.0) for g in (10.0, 40.0, -1.0)]
    row = measure.calibration_row(some)
    assert row["guesses"] == 3
    assert row["within a factor of 2 (%)"] == pytest.approx(100 / 3)
    assert row["too high (%)"] == 50
    lab.table([row])
    drawn = figures.calibration([s | dict(question="too high (%)") for s in some])
    assert list(drawn.data[-1].y) == [10.0, 40.0]  # a logarithm has no -1


def test_a_build_shows_nobodys_guesses(monkeypatch):
    monkeypatch.setattr(measure, "read_guesses", lambda: ["a guess"])
    monkeypatch.setattr(measure, "live", lambda: False)
    assert measure.guesses() == []
    monkeypatch.setattr(measure, "live", lambda: True)
    assert measure.guesses() == ["a guess"]


# --- Exercises -------------------------------------------------------------------------------


def gain(before, after, bandwidth):
    def seconds(flops, n_bytes, peak):
        return max(flops / peak, n_bytes / bandwidth)

    return seconds(*before) / seconds(*after)


def by_flops(before, after, bandwidth):
    return before[0] / before[2] / (after[0] / after[2])


SMALL = dict(attention=4, token=5, position=4, method="gptq", act_order=True, half=True)
SMALL |= dict(ffn=[4, 3, 3, 3, 4, 4])
SHOWN = dict(attention=4, ffn=4, token=6, position=4, method="gptq", half=True)
WINDOWS = dict(model="gpt2", device="CPU without VNNI", budget="latency", seq_len=64)


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("15-1", gain),
        pytest.param("15-2", SMALL, marks=pytest.mark.release),
        ("15-3", WINDOWS),
    ],
)
def test_exercises_take_right_answers(name, right, strict):
    lab.check(name, right)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("15-1", by_flops),
        ("15-2", dict()),
        ("15-2", dict(attention=3, ffn=3, token=4, position=4)),
        ("15-2", 4),
        pytest.param("15-2", SHOWN, marks=pytest.mark.release),  # section 9's own
        pytest.param("15-2", SMALL | dict(ffn=3), marks=pytest.mark.release),
        ("15-3", WINDOWS | dict(budget="checkpoint")),
        ("15-3", WINDOWS | dict(device="CPU with VNNI")),
    ],
)
def test_exercises_refuse_wrong_answers(name, wrong, strict):
    with pytest.raises(AssertionError):
        lab.check(name, wrong)
