"""Notebook 15: advice, light structures, splits, a profile, predictions, the game, and its end."""

import json

import pytest

from efflab import lab
from efflab.advice import predictions
from efflab.advice.case import BUDGETS
from efflab.cost import flops_by_part
from efflab.experiments import budget_game
from efflab.lab.verdict import OUTCOMES
from efflab_rooms.choose_plan import advice, ending, game, light, parallel, predicted, profiled
from efflab_rooms.choose_plan.profiled import Shares

A100 = "A100 80GB SXM"
MINE = dict(n_bytes=1_500_000, fits=True, bits=1.06, flops=3e9, time=0.5)


# --- Advice ----------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", BUDGETS)
def test_advice_and_refusals_are_every_technique_once(budget, both_languages):
    good, bad = (f("bert-base", A100, budget, n_devices=8) for f in (advice.rows, advice.refused))
    names = [row["technique"] for row in (*good, *bad)]
    assert len(set(names)) == len(names) == 15
    assert all(row["source"] for row in good)
    assert all(row["why not"] for row in bad)
    lab.table(good)
    lab.table(bad)


def test_the_plans_explorer_follows_its_controls(both_languages):
    one, many = (list(advice.plan(n).layout.meta.values()) for n in (1, 64))
    assert many[0] > one[0]
    assert many[1] > one[1]
    for device in ("CPU with VNNI", "CPU without VNNI"):
        fig = advice.plan(1, "stdlib-gpt", device, "latency")
        drawn = sum(len(trace.y) for trace in fig.data)
        assert drawn == next(iter(fig.layout.meta.values()))
    with pytest.raises(ValueError, match="n_devices=2"):
        advice.plan(2, "gpt2-xl", "CPU with VNNI")


def test_what_nothing_serves_is_still_a_picture(monkeypatch, both_languages):
    monkeypatch.setattr(advice, "_advised", lambda *_: [])
    assert list(advice.plan().layout.meta.values()) == [0, 0.0]


# --- Light structures ------------------------------------------------------------------------


def test_a_lead_is_the_best_structure_over_the_best_other():
    assert light.lead("bert-base", "checkpoint") > 1 > light.lead("bert-base", "latency")
    assert light.lead("bert-base", "quality") == 0
    rows = light.rows()
    assert len(rows) == 20
    for row in rows:
        assert row["is a light structure"] == (row["structure / best other"] > 1)


def test_windows_of_an_image_by_hand():
    side = 56  # 14 x 14 tokens
    projections = 8 * 196 * 96**2
    assert light.image_flops(side, windowed=False) == projections + 4 * 196**2 * 96
    assert light.image_flops(side, windowed=True) == projections + 4 * 49 * 196 * 96
    lead = light.image_flops(224, windowed=False) / light.image_flops(224, windowed=True)
    assert lead == pytest.approx(13.8, abs=0.05)


def test_leads_are_drawn(both_languages):
    fig = light.picture()
    assert len(fig.data) == 4
    assert all(len(bar.x) == 5 for bar in fig.data)
    lab.table(light.rows())


# --- Splits ----------------------------------------------------------------------------------


def test_borders_are_where_the_fastest_plans_turn(monkeypatch):
    class Plan:
        def __init__(self, tp, pp):
            self.tp, self.pp = tp, pp

    def borders(*shapes):
        found = [(1e9 * (i + 1), Plan(*shape)) for i, shape in enumerate(shapes)]
        monkeypatch.setattr(parallel, "plans", lambda *_: found)
        return parallel.borders(8)

    assert borders((1, 1), (1, 1), (2, 1), (2, 2)) == (2, 4)
    assert borders((2, 1), (1, 1), (1, 2), (2, 1)) == (0, 0)
    assert borders((1, 1)) == (1, 0)
    assert borders((1, 2), (1, 2)) == (0, 1)


def test_with_many_texts_small_models_need_no_split():
    few, many = (parallel.borders(64, texts) for texts in (128, 4096))
    assert few[0] == 0 < many[0] < many[1]


def test_plans_are_listed_and_explored(both_languages):
    rows = parallel.rows()
    assert rows[0]["8"] == "1x1x8"
    assert rows[-1]["8"] == "-"
    lab.table(rows, parallel.COLUMNS)
    fig = parallel.splits(8, 512)
    assert list(fig.layout.meta.values())[:2] == [7.47, 18.45]
    few = list(parallel.splits(512, 512).layout.meta.values())
    assert few[:2] == [lab.tr("none")] * 2
    assert [len(trace.x) for trace in fig.data] == [6, 6, 6]


# --- The profile -----------------------------------------------------------------------------


def test_the_profile_points_to_what_saves_more():
    attention, ffn = Shares(0.6, 0.1, 0.2, 0.1), Shares(0.1, 0.2, 0.6, 0.1)
    assert profiled.chosen(attention, 2048) == "windows"
    assert profiled.chosen(ffn, 2048) == "neurons"
    saved = profiled.saved(attention, 512)
    assert saved["windows"] == pytest.approx(0.6 * (1 - 61440 / 512**2))
    assert saved["neurons"] == pytest.approx(0.1)


def test_shares_are_measured_and_grow_with_the_length():
    short, long = profiled.shares(128), profiled.shares(2048)
    for found in (short, long):
        assert sum(vars(found).values()) == pytest.approx(1)
        assert min(vars(found).values()) > 0
    assert long.scores > 1.2 * short.scores
    parts = [flops_by_part(profiled.model().config, n) for n in (128, 2048)]
    assert parts[1]["scores"] / parts[1]["ffn"] > parts[0]["scores"] / parts[0]["ffn"]


@pytest.fixture(scope="module")
def few_repeats():
    """Measured once for both languages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profiled, "REPEATS", dict.fromkeys(profiled.LENGTHS, 3))
        profiled.measured.cache_clear()
        yield
        profiled.measured.cache_clear()


def test_measured_choices_become_rows_and_figures(few_repeats, both_languages):
    rows = profiled.rows()
    assert [row["tokens"] for row in rows] == [128, 512, 2048]
    assert rows[-1]["windows: time"] < 1
    assert rows[-1]["after the profile"] == "windows"
    lab.table(rows)
    found = lab.by_id(profiled.profile_evidence())
    changed = sum(row["after the profile"] != "windows" for row in rows)
    assert found["changed"].value == changed
    same = [row["tokens"] for row in rows if row["after the profile"] == "windows"]
    assert {found[f"time-{n}"].value for n in same} == {1.0}
    assert len(profiled.picture().data) == 4


# --- Predictions -----------------------------------------------------------------------------


@pytest.fixture
def made_up(monkeypatch):
    """Three sizes, of which one is predicted in the wrong place, and a quality alone."""
    rows = [
        dict(what="size", stage="as shipped", engine=str(i), predicted=p, measured=m,
             speed=None, least=p, most=p, low=m - 0.01, high=m + 0.01, error=p / m - 1)
        for i, (p, m) in enumerate([(1.0, 1.0), (0.5, 0.4), (0.4, 0.5)])
    ]  # fmt: skip
    rows.append(rows[0] | dict(what="quality"))
    monkeypatch.setattr(predictions, "predictions", lambda device: rows)
    return rows


def test_predictions_are_summed_up_and_drawn(made_up, both_languages):
    size, quality = predicted.rows()
    assert (size["predictions"], size["pairs that differ"]) == (3, 3)
    assert (size["in order"], size["out of order"], size["not told"]) == (2, 1, 0)
    assert size["in order by the middles"] == 2
    assert size["largest error (%)"] == pytest.approx(22.3, abs=0.1)
    assert quality["pairs that differ"] == 0
    lab.table(predicted.rows())
    fig = predicted.picture()
    assert list(fig.layout.meta.values()) == [3, 2, 1]


# --- The game --------------------------------------------------------------------------------


def test_moves_come_from_a_dict_and_unknown_ones_are_named():
    moves = game.checked(dict(ffn=[4, 4, 4, 4, 5, 5], method="gptq"))
    assert moves.ffn == (4, 4, 4, 4, 5, 5)
    with pytest.raises(
        ValueError, match=r"moves=\['magic'\]: expected one of act_order, attention"
    ):
        game.checked(dict(magic=1))


def test_the_readers_entry_takes_its_place(both_languages):
    assert game.rows()[0]["entry"] == budget_game.entries()[0]["entry"]
    rows = game.rows(MINE)
    assert (rows[0]["entry"], rows[0]["place"]) == (game.YOURS, 1)
    late = game.rows(MINE | dict(bits=1.3))
    assert [row["entry"] for row in late if row["fits"]][-1] == game.YOURS
    lab.table(rows)
    assert len(game.picture(MINE).data) == 2
    assert len(game.picture().data) == 1


def test_the_notebooks_own_moves_play():
    """The game, played by the notebook's text alone."""
    from efflab.publishing.catalog import sources
    from efflab.publishing.source import read_source

    (cell,) = [c.source for c in read_source(sources()["15"]).cells
               if c.cell_type == "code" and "moves = dict(" in c.source]  # fmt: skip
    line = next(text for text in cell.splitlines() if text.startswith("moves = "))
    moves = eval(line.removeprefix("moves = "))
    score = game.play(moves)
    assert score["fits"]
    assert score["bits"] < 1.09


# --- The end ---------------------------------------------------------------------------------


def test_every_claim_has_a_line_in_the_ledger(both_languages):
    rows = ending.ledger_rows()
    assert [row["claim"] for row in rows] == list(lab.load_claims())
    fig = ending.ledger_picture()
    assert sum(fig.layout.meta.values()) == len(rows)
    assert sum(sum(bar.y) for bar in fig.data) == len(rows)
    lab.table(rows)


def test_a_claim_that_no_notebook_judged_says_so(monkeypatch, tmp_path, both_languages):
    figure = dict(id="n", name="n", value=1, unit="", kind="measured", low=None, high=None)
    texts = dict(condition="", rule="n is 1", reason="", figures=[figure])
    record = dict(form=2, claim="attention-quadratic", holds=True, outcome="holds") | texts
    (tmp_path / "verdicts.json").write_text(json.dumps({"00": [record]}))
    monkeypatch.setattr(ending, "DATA_DIR", tmp_path)
    found = ending.outcomes()
    assert found.pop("attention-quadratic") == "holds"
    assert set(found.values()) == {ending.NOT_YET}
    assert list(ending.ledger_picture().layout.meta.values()) == [1, len(found)]


def test_the_ledgers_bars_have_the_cards_colours(monkeypatch, both_languages):
    all_of_them = [*OUTCOMES, ending.NOT_YET]
    claims = zip(lab.load_claims(), all_of_them, strict=False)
    monkeypatch.setattr(ending, "outcomes", lambda: dict(claims))
    bars = ending.ledger_picture().data
    assert [bar.marker.color for bar in bars[:-1]] == [look[-1] for look in OUTCOMES.values()]
    assert bars[-1].marker.color not in {look[-1] for look in OUTCOMES.values()}


def test_guesses_are_calibrated_where_there_are_some(both_languages):
    assert ending.calibration_rows([]) == []
    assert list(ending.calibration_picture([]).layout.meta.values()) == [0]
    some = [dict(notebook="03", question="q", guess=g, measured=10.0) for g in (10.0, 40.0, -1.0)]
    (row,) = ending.calibration_rows(some)
    assert row["guesses"] == 3
    assert row["within a factor of 2 (%)"] == pytest.approx(100 / 3)
    assert row["too high (%)"] == 50
    lab.table([row])
    drawn = ending.calibration_picture([s | dict(question="too high (%)") for s in some])
    assert list(drawn.data[-1].y) == [10.0, 40.0]  # a logarithm has no -1


def test_a_build_shows_nobodys_guesses(monkeypatch):
    monkeypatch.setattr(ending, "kept", lambda: ["a guess"])
    monkeypatch.setattr(ending, "live", lambda: False)
    assert ending.guesses() == []
    monkeypatch.setattr(ending, "live", lambda: True)
    assert ending.guesses() == ["a guess"]


# --- Exercises -------------------------------------------------------------------------------


def gain(before, after, bandwidth):
    def seconds(flops, n_bytes, peak):
        return max(flops / peak, n_bytes / bandwidth)

    return seconds(*before) / seconds(*after)


def by_flops(before, after, bandwidth):
    return before[0] / before[2] / (after[0] / after[2])


SMALL = dict(attention=5, ffn=4, token=6, position=4, method="gptq", half=True)
WINDOWS = dict(model="gpt2", device="CPU without VNNI", budget="latency", seq_len=64)


@pytest.mark.parametrize(("name", "right"), [("15-1", gain), ("15-2", SMALL), ("15-3", WINDOWS)])
def test_exercises_take_right_answers(name, right, strict):
    lab.check(name, right)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("15-1", by_flops),
        ("15-2", dict()),
        ("15-2", dict(attention=3, ffn=3, token=4, position=4)),
        ("15-2", 4),
        ("15-3", WINDOWS | dict(budget="checkpoint")),
        ("15-3", WINDOWS | dict(device="CPU with VNNI")),
    ],
)
def test_exercises_refuse_wrong_answers(name, wrong, strict):
    with pytest.raises(AssertionError):
        lab.check(name, wrong)
