"""Notebook 01: its tables, figures, explorers and exercises."""

from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch

from efflab import cost, lab, points
from efflab.config import PRESETS, ModelConfig
from efflab.data import read_published
from efflab.experiments import encoder_reuse_3, encoder_tasks, gptq_quality, qkv_sharing
from efflab.experiments.record import read_record
from efflab.model import Transformer
from efflab.structure.sharing import share_layers, share_qkv
from efflab_rooms.parameter_sharing import figures, measure

TINY = ModelConfig(3, 2, 32, 64, 60, 32)


def test_published_table_is_within_the_papers_rounding():
    rows = read_published("albert")
    assert len(rows) == 14
    counts = [cost.num_params(measure.albert_config(row)) / 1e6 for row in rows]
    pairs = zip(rows, counts, strict=True)
    off = [row["hidden"] for row, n in pairs if abs(n - row["params_millions"]) > 1]
    assert off == [2048, 4096]  # which do not follow from the paper's own architecture


@pytest.mark.parametrize("name", ["bert-base", "albert-base", "minilm-l6", "gpt2"])
def test_parts_add_up(name):
    assert sum(measure.parts(PRESETS[name]).values()) == cost.num_params(PRESETS[name])


def test_sixty_per_cent_needs_layers_that_hold_the_parameters():
    assert measure.saving(PRESETS["bert-base"]) > 0.6
    assert measure.saving(PRESETS["minilm-l6"]) < 0.4
    assert measure.saving(PRESETS["bert-base"], "none") == 0


@pytest.mark.parametrize(
    ("name", "millions", "share", "removed"),
    [("bert-base", (85.1, 109.5), 0.777, 0.71), ("minilm-l6", (10.6, 22.7), 0.469, 0.39)],
)
def test_what_sharing_removes_follows_from_the_layers_share(name, millions, share, removed):
    config, counts = PRESETS[name], measure.parts(PRESETS[name])
    layers, total = counts["attention"] + counts["feed-forward"], sum(counts.values())
    assert [round(n / 1e6, 1) for n in (layers, total)] == list(millions)
    assert round(layers / total, 3) == share
    by_hand = layers / total * (1 - 1 / config.n_layer)
    assert by_hand == pytest.approx(measure.saving(config))
    assert round(by_hand, 2) == removed


def test_states_and_checkpoint_fall_with_the_parameters_and_activations_stay():
    model, ids = Transformer(TINY), torch.randint(0, TINY.vocab_size, (4, 16))
    models = {"none": model} | {s: share_layers(model, s) for s in ("attention", "ffn", "all")}
    times = measure.compare_times(models, ids, repeats=1)
    rows = {row["cost"]: row for row in measure.cost_rows(models, ids, times)}
    ratio = cost.num_params(replace(TINY, share="all")) / cost.num_params(TINY)
    assert rows["parameters (M)"]["all / none"] == pytest.approx(ratio)
    states = rows["weights, gradients, AdamW (MB)"]
    # four fp32 numbers a parameter, and AdamW's step counters beside them
    assert states["none"] * 1e6 == pytest.approx(16 * cost.num_params(TINY), rel=0.01)
    assert states["all / none"] == pytest.approx(ratio, rel=0.01)
    assert rows["checkpoint (MB)"]["all / none"] == pytest.approx(ratio, rel=0.1)
    assert rows["activations kept (MB)"]["all / none"] == 1
    assert rows["forward GFLOP"]["all / none"] == 1
    fig = figures.costs_figure(list(rows.values()))
    assert len(fig.data[0].x) == len(rows)


def test_albert_steps_go_from_bert_to_albert():
    fig = figures.albert_steps()
    totals = list(fig.layout.meta.values())
    assert totals == sorted(totals, reverse=True)
    assert totals[-1] == pytest.approx(cost.num_params(PRESETS["albert-base"]) / 1e6, abs=0.1)


@pytest.mark.parametrize("share", ["none", "attention", "ffn", "all"])
@pytest.mark.parametrize(("n_layer", "d_model"), [(1, 128), (12, 768), (48, 2048)])
@pytest.mark.parametrize("d_embed", [0, 64])
def test_sharing_explorer(share, n_layer, d_model, d_embed):
    meta = figures.sharing(n_layer, d_model, share, d_embed).layout.meta
    shape = (n_layer, d_model // 64, d_model, 4 * d_model, 30000, 512)
    before = ModelConfig(*shape, type_vocab=2)
    after = replace(before, share=share, d_embed=d_embed or None)
    expected = cost.num_params(after) / cost.num_params(before)
    assert meta["parameters / baseline"] == pytest.approx(expected, abs=1e-3)
    assert meta["activations / baseline"] == 1
    if not d_embed:
        assert meta["forward FLOPs / baseline"] == 1


@pytest.mark.parametrize("n_tasks", [1, 4, 32])
@pytest.mark.parametrize("every_text", [True, False])
def test_tasks_explorer(n_tasks, every_text):
    meta = figures.tasks(n_tasks, 8, every_text).layout.meta
    assert meta["memory, no reuse / reuse"] == pytest.approx(n_tasks, rel=0.02)
    compute = n_tasks if every_text else 1
    assert meta["compute, no reuse / reuse"] == pytest.approx(compute, rel=0.01)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: figures.sharing(share="half"), "share='half'"),
        (lambda: figures.sharing(d_model=0), "d_model=0: expected an int of at least 1"),
        (lambda: figures.tasks(n_tasks=0), "n_tasks=0"),
        (lambda: measure.saving(TINY, "qkv"), "share='qkv'"),
        (lambda: qkv_sharing.validation_loss(7), "n_shared=7"),
        (lambda: qkv_sharing.validation_loss(0), "n_shared=0"),
        (lambda: measure.repeat_qkv(5), "n_shared=5"),
        (lambda: encoder_reuse_3.run_one("colour", "head", 0), "task='colour'"),
        (lambda: encoder_reuse_3.run_one("takes", "body", 0), "kind='body'"),
    ],
)
def test_bad_values_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_qkv_experiment_is_complete_and_its_summary_right():
    experiment, summary = measure.qkv_record()
    assert {"command", "machine", "versions", "seeds", "date"} <= experiment.keys()
    assert sorted(summary) == sorted(qkv_sharing.COUNTS)
    for n, values in summary.items():
        losses = [r["loss"] for r in experiment["runs"] if r["n_shared"] == n]
        assert len(losses) == len(experiment["seeds"])
        assert values["mean"] == pytest.approx(np.mean(losses))
    assert summary[1]["cost"] == 0
    fig = figures.qkv_figure({3: summary[3]["mean"]})
    assert any(trace.name == "now, here (measured)" for trace in fig.data)


def test_qkv_runs_repeat_and_differ_by_sharing():
    losses = [qkv_sharing.validation_loss(n, stop=2) for n in (1, 1, 6)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)
    assert losses[0] != losses[2]


def test_docstring_tasks_leak_nothing():
    docs = encoder_tasks.docstrings()
    assert len(set(docs.texts)) == len(docs.texts)
    for task, least in (("package", 8), ("returns", 600), ("takes", 600)):
        y = docs.labels[task]
        assert len(y) == len(docs.texts)
        assert min(np.bincount(y)) >= least  # of each class some in every fold


def test_heads_on_one_encoder_beat_the_commonest_class():
    encoder, tokenizer = points.encoder()
    docs = encoder_tasks.docstrings()
    embeddings = encoder_tasks.embed(encoder, encoder_tasks.token_ids(tokenizer, docs.texts))
    for task, gain in (("package", 40), ("returns", 5), ("takes", 4)):  # 2,394 texts tell 2 points
        y = docs.labels[task]
        heads = partial(encoder_tasks.head_hits, embeddings, y)
        accuracy = encoder_reuse_3.accuracy(encoder_reuse_3.fold_hits(len(y), 100, heads))
        assert accuracy > 100 * np.bincount(y).max() / len(y) + gain


def test_fine_tuning_trains_the_copy_alone():
    encoder, tokenizer = points.encoder()
    before = encoder.embedding.token.weight.clone()
    docs = encoder_tasks.docstrings()
    ids, test = encoder_tasks.token_ids(tokenizer, docs.texts), np.arange(len(docs.texts)) % 4 == 3
    hits = encoder_tasks.fine_tuned_hits(encoder, ids, docs.labels["returns"], test, 0, n_steps=1)
    assert hits.shape == (test.sum(),)
    torch.testing.assert_close(encoder.embedding.token.weight, before, rtol=0, atol=0)


def test_encoder_record_is_whole():
    record = read_record(encoder_reuse_3.NAME)
    assert {"command", "machine", "versions", "seeds", "date"} <= record.keys()
    assert record["complete"]
    each = set(product(encoder_tasks.TASKS, encoder_reuse_3.KINDS, encoder_reuse_3.SEEDS))
    assert {(run["task"], run["kind"], run["seed"]) for run in record["runs"]} == each
    assert len(record["runs"]) == len(each)
    assert {len(run["hits"]) for run in record["runs"]} == {record["settings"]["n_texts"]}


def test_the_figure_shows_every_run_and_every_interval():
    runs = read_record(encoder_reuse_3.NAME)["runs"]
    lost = encoder_reuse_3.cases(runs)
    fig = figures.reuse_figure(runs, lost, {kind: kind for kind in encoder_reuse_3.KINDS})
    *kinds, differences = fig.data
    assert [len(trace.y) for trace in kinds] == [len(runs) / 3] * 3
    keys = [f"folds-{task}" for task in encoder_tasks.TASKS]
    assert list(differences.y) == [lost[key].mean for key in keys]
    highs = np.add(differences.y, differences.error_y.array)
    assert highs == pytest.approx([lost[key].high for key in keys])
    assert list(fig.layout.meta) == list(encoder_tasks.TASKS)


def test_reuse_saves_memory_as_many_times_as_there_are_tasks():
    memory, times = measure.compare_reuse(repeats=1)
    assert memory["each"] / memory["one"] == pytest.approx(3, rel=0.01)
    assert times["each"].ratio(times["one"]) > 1


def test_the_text_says_among_how_many_functions_each_notebook_retrieves():
    """60 on the board, 120 in 10, 300 and 931 in 09."""
    settings = [read_record(name)["settings"] for name in ("int8-engines", "int8-ranges")]
    of_10 = read_record(gptq_quality.NAME)["settings"]["n_functions"]
    assert (points.N_FUNCTIONS, of_10) == (60, 120)
    assert [setting["n_test"] for setting in settings] == [300, 931]


def test_sharing_one_projection_with_itself_changes_nothing(monkeypatch):
    model = Transformer(replace(TINY, causal=True)).eval()
    ids = torch.arange(8)[None]
    with torch.no_grad():
        torch.testing.assert_close(share_qkv(model, 1)(ids), model(ids))


def share(layers):
    for layer in layers:
        layer.attention, layer.ffn = layers[0].attention, layers[0].ffn


def share_attention(layers):
    for layer in layers:
        layer.attention = layers[0].attention


ANSWERS = {
    "01-1": (share, share_attention),
    "01-2": (lambda d, f: 4 * (d * d + d) + 2 * d * f + f + d + 4 * d, lambda *_: 1),
    "01-3": (lambda n, n_layer: (n - 1) * 3 / (12 * n_layer), lambda *_: 1),
    "01-4": ([0, 1, 2, 4, 4, 5], [0, 1, 2, 3, 4, 5]),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_exercises_take_right_answers_and_refuse_wrong_ones(name, strict):
    right, wrong = ANSWERS[name]
    lab.check(name, right)
    with pytest.raises(AssertionError):
        lab.check(name, wrong)


def share_the_last(layers):
    for layer in layers:
        layer.attention, layer.ffn = layers[-1].attention, layers[-1].ffn


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("01-1", share_the_last),
        ("01-2", lambda d, f: 12 * d * d + 13 * d),  # right where f is 4 d
        ("01-4", [1, 1, 2, 3, 4, 5]),
        ("01-4", [0, 1, 2, 4, 4]),
        ("01-4", "012445"),
    ],
)
def test_exercises_refuse_what_a_count_alone_would_let_pass(name, wrong, strict):
    with pytest.raises(AssertionError):
        lab.check(name, wrong)
