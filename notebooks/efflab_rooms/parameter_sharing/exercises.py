"""Notebook 01's exercises: what is asked, and how an answer is judged."""

from efflab import cost
from efflab.config import PRESETS, ModelConfig
from efflab.lab import Exercise, tr


def _check_layer(answer):
    for d_model, d_ff in ((4, 16), (384, 1536), (768, 3072)):
        config = ModelConfig(1, 1, d_model, d_ff, 2, 2)
        expected = cost.attention_params(config) + cost.ffn_params(config)
        yield f"layer_params({d_model}, {d_ff})", expected, answer(d_model, d_ff)


def _check_qkv(answer):
    for n, n_layer in ((1, 12), (3, 6), (6, 12), (12, 12)):
        yield f"qkv_removed({n}, {n_layer})", (n - 1) * 3 / (12 * n_layer), answer(n, n_layer)


def _check_tasks(answer):
    for budget in (1e8, 1e9, 8e9):
        bytes_, head = 4 * cost.num_params(PRESETS["minilm-l6"]), 4 * 385 * 8
        what = f"max_tasks({budget:.0f})"
        expected = (int(budget // (bytes_ + head)), int((budget - bytes_) // head))
        for i, name in enumerate((tr("an encoder a task"), tr("one encoder, n heads"))):
            yield f"{what}, {name}", expected[i], answer(budget)[i]


EXERCISES = {
    "01-1": Exercise(
        _check_layer,
        hint="Four d_model x d_model maps, two of d_model x d_ff, a bias for each output, "
        "and two LayerNorms of 2 d_model.",
    ),
    "01-2": Exercise(
        _check_qkv,
        hint="Count in units of d_model^2: a layer has 12 of them, its QKV 3. Of n layers that "
        "share, one keeps its projection.",
    ),
    "01-3": Exercise(
        _check_tasks,
        hint="Without reuse each task pays encoder + head; with reuse the encoder is paid once.",
    ),
}
