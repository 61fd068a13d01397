"""Notebook 12: its tables and pictures on real ranks, explorers, verdicts and exercises."""

from dataclasses import replace

import pytest
import torch

from efflab import cost, lab
from efflab.config import PRESETS
from efflab.distributed import buckets, data_parallel, zero
from efflab.distributed.buckets import Wire, predict
from efflab.distributed.launch import RankError, RankPool
from efflab_rooms.data_parallel import exercises, figures, measure, verdicts

BATCH, TOKENS, STEPS = 4, 16, 2
SLOW = Wire(latency_seconds=0.001, bytes_per_second=200e6)


@pytest.fixture(scope="module")
def pools():
    with RankPool(2) as two, RankPool(4) as four:
        yield {2: two, 4: four}


def compare(pools, job):
    one = job.alone()
    return {
        (n, method): measure.compare(pool, replace(job, method=method), one)
        for n, pool in pools.items()
        for method in data_parallel.METHODS
    }


@pytest.fixture(scope="module")
def by_stage(pools):
    """{ranks: {stage: what each rank holds}}."""
    job = measure.job(BATCH, TOKENS, 3)
    held = {n: {} for n in pools}
    for n, pool in pools.items():
        for stage in zero.STAGES:
            staged = zero.Job(job.config, job.ids, job.targets, stage)
            held[n][stage] = pool.run(zero.on_rank, staged, timeout=120)
    return held


@pytest.fixture(scope="module")
def by_batch(pools):
    """{batch: {stage: what each rank holds}}, of shorter texts than the notebook's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "BATCHES", (4, 16, 64))
        patch.setattr(measure, "TOKENS", TOKENS)
        return measure.held_by_batch(pools[4])


@pytest.fixture(scope="module")
def twice():
    """A job of twice the rows."""
    return measure.job(BATCH * 2, TOKENS, STEPS)


@pytest.fixture(scope="module")
def errors(pools, twice):
    """{what went wrong: largest difference of the gradients of four ranks from one process's}."""
    return measure.gradient_errors(pools[4], twice, twice.alone())


# --- Ranks -----------------------------------------------------------------------------------


def test_ranks_tell_how_far_they_are_and_which_one_failed(pools):
    seen = []
    options = dict(timeout=60, on_progress=lambda rank, text: seen.append((rank, text)))
    assert pools[2].run(measure.report_steps, 2, **options) == ["rank 0 of 2", "rank 1 of 2"]
    assert sorted(seen) == [(r, f"step {s}") for r in (0, 1) for s in (0, 1)]
    with pytest.raises(RankError, match="ZeroDivisionError: no rows left on this rank") as failure:
        pools[2].run(measure.fail_on_last_rank, timeout=60)
    assert failure.value.rank == 1


def test_ddp_is_one_process_and_the_control_is_not(pools):
    comparisons = compare(pools, measure.job(BATCH, TOKENS, STEPS))
    for (_, method), comparison in comparisons.items():
        together = method != "none"
        assert (comparison.gradients < verdicts.SAME) == together
        assert (comparison.between_ranks == 0) == together
        assert comparison.sent / comparison.formula == pytest.approx(1 if together else 0, abs=0.01)


def test_what_breaks_and_what_repairs_it(errors):
    assert {what for what, error in errors.items() if error > verdicts.SAME} == {
        "uneven shares",
        "different seeds, averaged by hand",
        "batch norm over a rank's own rows",
        "a forgotten sampler",
    }


def test_without_a_sampler_four_ranks_do_the_work_of_one():
    with_sampler, without = (data_parallel.sampled_rows(1024, 4, on) for on in (True, False))
    steps = [{row for rank in read for row in rank[:8]} for read in (with_sampler, without)]
    assert list(map(len, steps)) == [32, 8]
    assert len(without[0]) == 4 * len(with_sampler[0])


def test_the_ring_is_never_more_than_twice_and_many_ranks_wait_for_its_steps(both_languages):
    fig = figures.ways_to_sum()
    through, ring, tree, ring_ms, tree_ms = (list(trace.y) for trace in fig.data)
    assert through[0] == ring[0] == 1.0
    assert max(ring) < 2 == max(tree) < through[-1]
    assert ring_ms[0] < tree_ms[0]
    # the text: fifty times
    assert ring_ms[-1] / tree_ms[-1] == pytest.approx(51, abs=1)
    small, small_tree, large, large_tree = fig.layout.meta.values()
    assert large / large_tree < 1.2 < small / small_tree


def test_a_traced_pass_is_drawn_and_predicted(pools, both_languages):
    job = measure.job(BATCH, TOKENS, STEPS)
    traces = []
    for mb in (1, 25, None):
        arguments = PRESETS["stdlib-gpt"], job.ids, job.targets, mb, SLOW
        traces.append(pools[2].run(buckets.trace_on_rank, *arguments, timeout=120)[0])
    small, large, default = traces
    assert len(small.transfers) > 5 > len(large.transfers) == 1
    first, rest = (transfer.n_bytes for transfer in default.transfers)
    assert 2**20 <= first < rest
    for trace in traces:
        assert trace.transfers[0].start == trace.transfers[0].ready, "nothing is in its way"
    for trace in traces:
        ready, sizes = zip(*((t.ready, t.n_bytes) for t in trace.transfers), strict=True)
        expected = buckets.Trace(trace.backward, buckets.transfers(ready, sizes, SLOW, 2))
        assert trace.seconds / expected.seconds > 0.9  # never sooner than predicted
    assert large.hidden == 0.0
    fig = figures.backward_pass(small, 1)
    assert len(fig.data[2].x) == len(small.transfers)


# --- ZeRO ------------------------------------------------------------------------------------


def test_stages_hold_what_the_formula_says(by_stage, both_languages):
    n_params = cost.num_params(measure.CONFIG)
    ratios = {
        (n, stage): max(map(measure.state_bytes, ranks))
        / cost.model_state_bytes(n_params, n, stage, **zero.FP32_ADAM)
        for n, stages in by_stage.items()
        for stage, ranks in stages.items()
    }
    for n in (2, 4):
        assert ratios[n, 0] == 1
        assert ratios[n, 1] == pytest.approx(1, abs=0.02)
        assert ratios[n, 2] == pytest.approx(1 + 4 / n / (4 + 12 / n), rel=0.005)
        assert ratios[n, 3] == pytest.approx(1, abs=0.005)
    shares = list(figures.stages(by_stage[4]).layout.meta.values())
    assert shares[0] == 100
    assert shares == sorted(shares, reverse=True)


def test_stages_train_alike_and_send_what_the_text_says(by_stage):
    plain = by_stage[4][0]
    for ranks in by_stage[4].values():
        for rank, ddp in zip(ranks, plain, strict=True):
            assert rank.losses == pytest.approx(ddp.losses, abs=1e-4)
    weights = 3 / 4 * 4 * cost.num_params(measure.CONFIG)
    sent = [max(held.sent for held in ranks) / weights for ranks in by_stage[4].values()]
    assert list(map(round, sent)) == [2, 3, 3, 4]


# --- Explorers -------------------------------------------------------------------------------


def test_the_cards_explorer_counts_bytes(both_languages):
    gb, needed, billions, active = figures.cards("gpt2-xl", 1, 0).layout.meta.values()
    assert gb == pytest.approx(16 * billions)
    assert active == billions == pytest.approx(1.56, abs=0.005)
    assert needed == 1
    fp32 = figures.cards("gpt2-xl", 64, 3, "Adam", "fp32").layout.meta
    assert fp32["GB"] == pytest.approx(16 * billions / 64)
    assert figures.bytes_a_parameter("plain SGD", "fp32")["optimizer_bytes"] == 0


def test_all_experts_states_are_kept_and_only_stage_3_cuts_them_all(both_languages):
    # the text: 37.6 of 671 billion, 10.7 TB, 1.3 TB that stage 2 leaves whole, 125 ranks
    gb, never, billions, active = figures.cards("deepseek-v3", 1, 2).layout.meta.values()
    assert (round(billions), round(active, 1), round(gb / 1e3, 1)) == (671, 37.6, 10.7)
    assert round(2 * billions / 1e3, 1) == 1.3
    assert never == lab.tr("more than {n}", n="1,024")
    assert list(figures.cards("deepseek-v3", 64, 3).layout.meta.values())[1] == 125
    assert list(figures.cards("gpt3-175b", 64, 3).layout.meta.values())[1] == 33


def test_the_overlap_explorer_is_the_prediction():
    meta = list(figures.overlap(32, 64, 20, 8).layout.meta.values())
    layers = [0.004] * 24, [24 * 2**20] * 24
    expected = predict(*layers, 32 * 2**20, Wire(20e-6, 8e9), 8)
    assert meta[0] == len(expected.transfers) == 12
    assert meta[1] == pytest.approx(1e3 * expected.seconds)
    ring, tree = (
        [
            figures.overlap(bucket=mb, ranks=1024, way=way).layout.meta["time (ms)"]
            for mb in (32, 256)
        ]
        for way in ("ring", "tree")
    )
    # a ring's latencies ask for large buckets, a tree's do not
    assert ring[1] < ring[0]
    assert tree[0] < tree[1]


# --- Verdicts --------------------------------------------------------------------------------


def test_ranks_are_judged_by_what_they_did(pools, twice, errors):
    equal = verdicts.ddp_equal(verdicts.equal_evidence(compare(pools, twice), errors))
    assert equal.outcome == "holds"


def test_zero_is_judged_by_what_ranks_held(by_stage, by_batch, both_languages):
    evidence = verdicts.zero_evidence(by_stage, by_batch)
    assert verdicts.zero_memory(evidence).parts[0].outcome == "holds"
    value = {item.id: item.value for item in evidence}
    assert value["step-4"] < value["step-16"] < value["step-64"], "activations are not cut"
    # the state alone would be the whole difference
    assert value["activations-4"] < value["activations-64"]
    assert value["fades"] > 64
    assert value["two-ranks-2"] == pytest.approx(100, abs=1)
    drawn = list(figures.batches(by_batch).layout.meta.values())
    assert drawn == [pytest.approx(value[f"step-{batch}"], abs=0.1) for batch in (4, 16, 64)]


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


def one_send(parts, send):
    """Right sums, but all of them at one rank's hands."""
    send(0, 0)
    total = [sum(column) for column in zip(*parts, strict=True)]
    for rank in parts:
        rank[:] = total


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
        ("12-1", ring, one_send),
        pytest.param("12-2", 3, 25, marks=pytest.mark.release),  # it trains; probes run it too
        ("12-3", (largest, placed), (halves, back)),
    ],
)
def test_exercises_take_right_answers_and_refuse_wrong_ones(name, right, wrong, strict):
    lab.check(name, right)
    with pytest.raises(AssertionError):
        lab.check(name, wrong)


def test_an_invalid_size_is_refused(strict):
    with pytest.raises(AssertionError):
        lab.check("12-2", -1)


def test_whole_gradients_learn():
    assert exercises.uncompressed_loss() < 7.0  # ln 2048 = 7.6
