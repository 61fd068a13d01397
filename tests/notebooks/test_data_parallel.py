"""Notebook 12: its tables and pictures on real ranks, explorers, verdicts and exercises."""

import pytest
import torch

from efflab import lab
from efflab.distributed.buckets import Wire, predict
from efflab.distributed.launch import RankPool
from efflab_rooms.data_parallel import equal, exercises, memory, overlap, verdicts

BATCH, TOKENS, STEPS = 4, 16, 2


@pytest.fixture(scope="module")
def pools():
    with RankPool(2) as two, RankPool(4) as four:
        yield {2: two, 4: four}


# --- Ranks -----------------------------------------------------------------------------------


def test_ranks_tell_how_far_they_are_and_which_one_failed(pools):
    seen = []
    options = dict(timeout=60, on_progress=lambda rank, text: seen.append((rank, text)))
    assert pools[2].run(equal.told, 2, **options) == ["rank 0 of 2", "rank 1 of 2"]
    assert sorted(seen) == [(r, f"step {s}") for r in (0, 1) for s in (0, 1)]
    assert equal.failure(pools[2]) == "rank 1: ZeroDivisionError: no rows left on this rank"


def test_ddp_is_one_process_and_the_control_is_not(pools, both_languages):
    rows = equal.equality_rows(pools, BATCH, TOKENS, STEPS)
    assert [(r["ranks"], r["averaged"]) for r in rows] == [
        (n, how) for n in (2, 4) for how in ("ddp", "by hand", "none")
    ]
    for row in rows:
        together = row["averaged"] != "none"
        assert (row["gradients: difference"] < verdicts.SAME) == together
        assert (row["between ranks"] == 0) == together
        assert row["sent / formula"] == pytest.approx(1 if together else 0, abs=0.01)
    lab.table(rows)


def test_what_breaks_and_what_repairs_it(pools, both_languages):
    rows = equal.broken_rows(pools[4], BATCH * 2, TOKENS)
    wrong = {row["what differs"] for row in rows if row["wrong"]}
    assert wrong == set(equal.REPAIR)
    assert all((row["repair"] is not None) == row["wrong"] for row in rows)
    lab.table(rows)
    with_sampler, without = equal.sampler_rows()
    assert (with_sampler["different rows in a step"], without["different rows in a step"]) == (
        32,
        8,
    )
    assert without["steps in an epoch"] == 4 * with_sampler["steps in an epoch"]


def test_the_ring_is_never_more_than_twice():
    fig = equal.ways_figure()
    through, ring = (list(trace.y) for trace in fig.data)
    assert through[0] == ring[0] == 1.0
    assert max(ring) < 2 < through[-1]


def test_a_traced_pass_is_drawn_and_predicted(pools, both_languages):
    rows = overlap.trace_rows(pools[2], BATCH, TOKENS, (1, 25))
    assert rows[0]["buckets"] > 5 > rows[1]["buckets"] == 1
    assert all(row["ratio"] > 0.9 for row in rows)  # never sooner than predicted
    assert rows[1]["hidden (%)"] < 5
    fig = overlap.trace_figure(pools[2], BATCH, TOKENS, 1)
    assert len(fig.data[2].x) == rows[0]["buckets"]


# --- ZeRO ------------------------------------------------------------------------------------


def test_stages_hold_what_the_formula_says(pools, both_languages):
    rows = memory.stage_rows(pools, BATCH, TOKENS)
    ratios = {(r["ranks"], r["stage"]): r["ratio"] for r in rows}
    for n in (2, 4):
        assert ratios[n, 0] == 1
        assert ratios[n, 1] == pytest.approx(1, abs=0.02)
        assert ratios[n, 2] == pytest.approx(1 + 4 / n / (4 + 12 / n), rel=0.005)
        assert ratios[n, 3] == pytest.approx(1, abs=0.005)
    lab.table(rows)
    trained = memory.training_rows(pools[4], BATCH, TOKENS)
    assert all(row["furthest from DDP (nats)"] < 1e-4 for row in trained)
    assert [round(row["sent, in weights (measured)"]) for row in trained] == [2, 3, 3, 4]
    shares = list(memory.stages_figure(pools[4], BATCH, TOKENS).layout.meta.values())
    assert shares[0] == 100
    assert shares == sorted(shares, reverse=True)


def test_the_papers_table_is_the_formulas():
    for row in memory.paper_rows():
        for stage in (1, 2, 3):
            paper, computed = row[f"stage {stage}: paper"], row[f"stage {stage}: formula"]
            assert computed == pytest.approx(paper, abs=0.06)


def test_who_holds_and_who_computes(both_languages):
    rows = {row["way"]: row for row in memory.split_rows(4)}
    assert rows["ZeRO-3"]["layers computed"] == rows["data parallel"]["layers computed"] == "all"
    assert rows["pipeline parallel"]["layers computed"] == "1/4"
    lab.table(memory.split_rows())


# --- Explorers -------------------------------------------------------------------------------


def test_the_cards_explorer_counts_bytes():
    meta = memory.cards(8.0, 1, 0, "Adam", "mixed").layout.meta
    assert meta["GB"] == pytest.approx(128)
    assert memory.cards(8.0, 64, 3, "Adam", "fp32").layout.meta["GB"] == pytest.approx(2)
    assert memory.bytes_a_parameter("plain SGD", "fp32")["optimizer_bytes"] == 0
    assert list(memory.cards(8.0, 1, 3).layout.meta.values())[1] == 2  # 128 GB on two of 80
    none = list(memory.cards(1024.0, 1, 0).layout.meta.values())[1]
    assert none == "more than 1,024"


def test_the_overlap_explorer_is_the_prediction():
    meta = list(overlap.overlap(32, 64, 200, 8).layout.meta.values())
    layers = [0.004] * 24, [24 * 2**20] * 24
    made = predict(*layers, 32 * 2**20, Wire(200e-6, 8e9), 8)
    assert meta[0] == len(made.transfers) == 12
    assert meta[1] == pytest.approx(1e3 * made.seconds)


# --- Verdicts --------------------------------------------------------------------------------

EQUAL = {
    "gradients": 1e-7,
    "weights": 1e-7,
    "control": 0.5,
    "sent": 1.0,
    "uneven": 0.2,
    "batch-norm": 0.3,
}
LESS = {
    "step": 60.0,
    "state": 25.0,
    "formula": 1.14,
    "sent": 2.0,
} | {f"{key}-{stage}": 80.0 for stage in verdicts.STAGES for key in ("step", "state")}


def outcome(judge, values, changes):
    return judge([lab.Evidence(key, "x", value) for key, value in (values | changes).items()])


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "holds if"),
        ({"uneven": 1e-5, "batch-norm": 1e-5}, "holds"),
        ({"gradients": 1e-5, "weights": 1e-5}, "holds if"),
        ({"gradients": 1.1e-5}, "does not hold"),
        ({"weights": 1.1e-5}, "does not hold"),
        ({"control": 1e-3}, "holds if"),
        ({"control": 9e-4}, "undecided"),
    ],
)
def test_ddp_equal_can_lose(changes, word, both_languages):
    found = outcome(verdicts.ddp_equal, EQUAL, changes)
    assert found.word == word
    lab.verdict("ddp-equal", found)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "holds"),
        ({"step-1": 95.0, "formula": 1.2}, "holds"),
        ({"step-3": 95.1, "state-1": 95.0}, "holds if"),
        ({"step-2": 96.0, "state-2": 95.1}, "does not hold"),
        ({"step-3": 96.0, "state-3": 101.0}, "does not hold"),
        ({"formula": 1.3}, "undecided"),
        ({"formula": 0.7}, "undecided"),
    ],
)
def test_zero_memory_can_lose(changes, word, both_languages):
    found = outcome(verdicts.zero_memory, LESS, changes)
    assert found.word == word
    lab.verdict("zero-memory", found)


def test_the_figures_of_real_ranks_give_their_verdicts(pools):
    found = verdicts.ddp_equal(equal.equal_evidence(pools, BATCH * 2, TOKENS, STEPS))
    assert found.word == "holds if"
    zero = verdicts.zero_memory(memory.zero_evidence(pools[4], BATCH, TOKENS))
    assert zero.word in ("holds", "holds if")


# --- Exercises -------------------------------------------------------------------------------


def ring(parts, send):
    n = len(parts)
    for s in range(n - 1):
        moved = [send(r, (r - s) % n) for r in range(n)]
        for r in range(n):
            parts[(r + 1) % n][(r - s) % n] += moved[r]
    for s in range(n - 1):
        moved = [send(r, (r + 1 - s) % n) for r in range(n)]
        for r in range(n):
            parts[(r + 1) % n][(r + 1 - s) % n] = moved[r]


def first_lap_only(parts, send):
    n = len(parts)
    for s in range(n - 1):
        moved = [send(r, (r - s) % n) for r in range(n)]
        for r in range(n):
            parts[(r + 1) % n][(r - s) % n] += moved[r]


def everything_round(parts, send):
    """Right sums, but whole gradients travel n - 1 times."""
    n = len(parts)
    own = [list(rank) for rank in parts]
    for _ in range(n - 1):
        moved = [[send(r, i) for i in range(n)] for r in range(n)]
        own = [own[r - 1] for r in range(n)]
        for r in range(n):
            parts[r] = [a + b for a, b in zip(parts[r], own[r], strict=True)]
    del moved


def halves(gradient, key):
    return (gradient.half(),)


def back(payload, shape):
    return payload[0].float()


def largest(gradient, key):
    at = gradient.abs().flatten().topk(max(1, gradient.numel() // 20)).indices
    return gradient.flatten()[at], at.int()


def placed(payload, shape):
    return torch.zeros(shape.numel()).index_put((payload[1].long(),), payload[0]).view(shape)


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("12-1", ring, first_lap_only),
        ("12-1", ring, everything_round),
        ("12-2", 3, 25),
        ("12-3", (largest, placed), (halves, back)),
    ],
)
def test_exercises_take_right_answers_and_refuse_wrong_ones(name, right, wrong, strict):
    lab.check(name, right)
    with pytest.raises(AssertionError):
        lab.check(name, wrong)


def test_a_size_that_is_none_is_refused(strict):
    with pytest.raises(AssertionError):
        lab.check("12-2", -1)


def test_whole_gradients_learn():
    assert exercises.uncompressed() < 7.0  # ln 2048 = 7.6
