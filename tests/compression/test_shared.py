"""Modules and weights that several places share: each counts once, and every place gets the same.

The model beside each is its twin without sharing: other parameters, the same numbers in them.
"""

import importlib
import inspect
import pkgutil
from copy import deepcopy

import pytest
import torch
from torch import nn

from efflab import compression
from efflab.base.hooks import linear_layers, linear_places, share_as, watching
from efflab.compression import calibration, engines, gptq, int8, language, openvino, packed, pruning
from efflab.compression.vectorwise import ByToken, OutliersApart
from efflab.config import ModelConfig
from efflab.model import Transformer, n_parameters
from efflab.structure.sharing import share_layers, share_qkv

CONFIG = ModelConfig(3, 2, 32, 64, 100, 16)
IDS = torch.randint(0, 100, (4, 12), generator=torch.Generator().manual_seed(0))
BATCH = IDS, torch.ones_like(IDS)


def one_weight(model):
    """Two layers that are two modules and hold one parameter."""
    model = deepcopy(model)
    model.layers[2].ffn.body.up.weight = model.layers[0].ffn.body.up.weight
    return model


KINDS = {
    "qkv": lambda model: share_qkv(model, 3),
    "attention": lambda model: share_layers(model, "attention"),
    "ffn": lambda model: share_layers(model, "ffn"),
    "all": lambda model: share_layers(model, "all"),
    "weight": one_weight,
}


@pytest.fixture(params=KINDS)
def shared(request):
    torch.manual_seed(0)
    return KINDS[request.param](Transformer(CONFIG).eval())


@pytest.fixture
def twin(shared):
    alone = Transformer(CONFIG).eval()
    alone.load_state_dict(shared.state_dict())
    assert n_parameters(alone) > n_parameters(shared)
    return alone


def run(model):
    with torch.no_grad():
        return model.encode(IDS)


def masks(model):
    return pruning.weight_masks(model, lambda w: pruning.magnitude_mask(w, 0.5))


def calibrated(model):
    return int8.calibrate(model.encode, model, [IDS])


def rounded(model):
    return packed.quantize_weights(model, 4, axis=0)


def held(model):
    """The states of a training step with masks held, and that after it."""
    model = deepcopy(model)
    with pruning.hold_masks(model, masks(model)):
        inside = run(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model.encode(IDS).square().mean().backward()
        optimizer.step()
    for place in {place for places in linear_places(model).values() for place in places}:
        assert (model.get_submodule(place).weight == 0).float().mean() >= 0.5
    return inside


def saved(model, tmp_path):
    path = tmp_path / "q.safetensors"
    packed.save_quantized(model, rounded(model), path)
    return run(packed.load_model(path, lambda: deepcopy(model)))


UNITS = {0: [1], 2: [0]}
MADE = {
    "replace_linears": lambda m: run(int8.replace_linears(m, lambda _, linear: ByToken(linear))),
    "dynamic_int8": lambda m: run(int8.dynamic_int8(m)),
    "outliers apart": lambda m: run(int8.replace_linears(m, lambda _, x: OutliersApart(x))),
    "fp32": lambda m: engines.fp32(m).embed(*BATCH),
    "torch_engine": lambda m: engines.torch_engine("as it is", m).embed(*BATCH),
    "bf16": lambda m: engines.bf16(m).embed(*BATCH),
    "torch_dynamic": lambda m: engines.torch_dynamic(m, table=True).embed(*BATCH),
    "torch_dynamic_int8": lambda m: run(engines.torch_dynamic_int8(m)),
    "torchao_int8": lambda m: engines.torchao_int8(m).embed(*BATCH),
    "torch_language": lambda m: language.torch_language("as it is", m)(IDS),
    "bf16_language": lambda m: language.bf16_language(m)(IDS),
    "dynamic_language": lambda m: language.dynamic_language(m)(IDS),
    "quantize_weights": lambda m: run(packed.with_weights(m, rounded(m))),
    "with_weights": lambda m: run(packed.with_weights(m, rounded(m))),
    "fill": lambda m: run(packed.fill(deepcopy(m), dict(m.named_parameters()))),
    "quantize_by": lambda m: run(
        packed.with_weights(m, calibration.quantize_by("rtn", m, 4, None))
    ),
    "weight_masks": lambda m: run(pruning.apply_masks(m, masks(m))),
    "apply_masks": lambda m: run(pruning.apply_masks(m, masks(m))),
    "hold_masks": held,
    "forward_flops": lambda m: torch.tensor(pruning.forward_flops(m, 12)),
    "prune_heads": lambda m: run(pruning.prune_heads(m, UNITS)),
    "prune_ffn": lambda m: run(pruning.prune_ffn(m, UNITS)),
    "head_masks": lambda m: run(pruning.apply_masks(m, pruning.head_masks(m, UNITS))),
    "head_importance": lambda m: pruning.head_importance(m, [(IDS, IDS)]),
    "neuron_importance": lambda m: pruning.neuron_importance(m, [(IDS, IDS)]),
}
"""What has to come out as for the twin, to the bit, or be refused by saying what is shared."""
FITTED = {
    "smooth_model": lambda m: run(openvino.smooth_model(m, [BATCH])),
    "torch_smoothed": lambda m: engines.torch_smoothed(m, [BATCH]).embed(*BATCH),
    "calibrate": lambda m: run(int8.static_int8(m, calibrated(m))),
    "channel_peaks": lambda m: run(openvino.smooth_model(m, [BATCH])),
    "static_int8": lambda m: run(int8.static_int8(m, calibrated(m))),
    "prepare_static": lambda m: run(engines.prepare_static(m)),
    "torch_static": lambda m: engines.torch_static(m, [BATCH]).embed(*BATCH),
    "gptq_model": lambda m: run(packed.with_weights(m, gptq.gptq_model(m, [IDS], 8))),
}
"""What is fitted to inputs: one fit for all places, so close to the model and not to the bit."""
ELSEWHERE = {
    "layer_hessians",
    "layers_error",
    "pickled_bytes",
    "weight_matrices",
    "model_bytes",
    "save_quantized",
    "make_decoder",
    "save_openvino",
}
"""In tests of their own below, or of decoders; an OpenVINO model is none of ours."""
TRACED = {
    "onnx_int8",
    "openvino_fp32",
    "openvino_int8",
    "openvino_model",
    "openvino_engine",
    "openvino_language",
    "openvino_language_int8",
    "convert_language",
    "smooth_for_nncf",
}
"""They take what the model computes (after `smoothed_model`), not its modules."""


def test_every_function_of_a_model_is_looked_at():
    found = set()
    for info in pkgutil.iter_modules(compression.__path__):
        module = importlib.import_module(f"{compression.__name__}.{info.name}")
        for name, fn in vars(module).items():
            own = inspect.isfunction(fn) and fn.__module__ == module.__name__
            if own and not name.startswith("_") and "model" in inspect.signature(fn).parameters:
                found.add(name)
    assert found - {*MADE, *FITTED, *ELSEWHERE, *TRACED} == set()


@pytest.mark.parametrize("name", MADE)
def test_a_shared_model_gives_what_its_twin_gives(name, shared, twin):
    try:
        found, refused = MADE[name](shared), ""
    except ValueError as error:
        found, refused = None, str(error)
    if refused:
        assert name.startswith(("prune", "head", "neuron"))
        assert "no other layer shares" in refused or "one for each layer" in refused
    else:
        assert torch.equal(found, MADE[name](twin))


@pytest.mark.parametrize("name", FITTED)
def test_what_is_fitted_to_inputs_fits_every_place(name, shared):
    exact = engines.fp32(shared).embed(*BATCH) if name.startswith("torch") else run(shared)
    assert int8.relative_error(FITTED[name](shared), exact) < 0.02


@pytest.mark.parametrize(
    "make",
    [
        int8.dynamic_int8,
        lambda m: int8.static_int8(m, calibrated(m)),
        lambda m: int8.replace_linears(m, lambda _, linear: OutliersApart(linear)),
        lambda m: openvino.smooth_model(m, [BATCH]),
        engines.prepare_static,
    ],
)
def test_no_place_is_left_out_and_what_was_one_module_stays_one(make, shared):
    made, groups = make(shared), {}
    for place, module in shared.named_modules(remove_duplicate=False):
        if isinstance(module, nn.Linear):
            groups.setdefault(module, []).append(place)
    for places in groups.values():
        found = {made.get_submodule(place) for place in places}
        assert len(found) == 1
        assert not isinstance(found.pop(), nn.Linear)


def test_a_linear_layer_alone_and_one_that_its_parent_names_twice_are_replaced():
    linear = nn.Linear(8, 8)
    assert isinstance(int8.dynamic_int8(linear), int8.Int8Linear)
    twice = int8.dynamic_int8(nn.Sequential(linear, nn.ReLU(), linear))
    assert [type(m) for m in twice] == [int8.Int8Linear, nn.ReLU, int8.Int8Linear]
    assert twice[0] is twice[2]


def test_bytes_count_what_is_shared_once(shared, twin, tmp_path):
    quantized = rounded(shared)
    assert packed.model_bytes(shared, quantized) < packed.model_bytes(twin, rounded(twin))
    assert set(quantized) <= {name for name, _ in shared.named_parameters()}
    assert sum(w.numel() for w in packed.weight_matrices(shared).values()) < n_parameters(shared)
    assert torch.equal(saved(shared, tmp_path), run(packed.with_weights(shared, quantized)))
    if len(linear_layers(shared)) == len(linear_layers(twin)):  # two modules: a library's concern
        return
    makers = (
        engines.fp32,
        engines.bf16,
        engines.torch_dynamic,
        engines.torchao_int8,
        lambda m: engines.torch_static(m, [BATCH]),
    )
    for make in makers:
        # what it costs to say the names again is far below any of the layers
        assert make(shared).nbytes < make(twin).nbytes - 3 * 32 * 32
    assert language.dynamic_language(shared).nbytes < language.dynamic_language(twin).nbytes - 3000


def test_a_weights_hessian_is_the_sum_over_its_places(shared, twin):
    ours, alone = (calibration.layer_hessians(m, [IDS]) for m in (shared, twin))
    for weight, places in linear_places(shared).items():
        total = sum(alone[f"{place}.weight"] for place in places)
        torch.testing.assert_close(ours[weight], total)
    error = calibration.layers_error(shared, gptq.gptq_model(shared, [IDS], 4), ours)
    assert 0 < error < 0.1


def test_gptq_fits_a_shared_map_to_all_its_inputs_and_names_it_once(shared, twin):
    """The first map that several places share, with every map before it as it was quantized."""
    quantized = gptq.gptq_model(shared, [IDS], 4)
    assert list(quantized) == list(linear_places(shared))
    assert set(quantized) <= {name for name, _ in shared.named_parameters()}
    name, places = next((n, p) for n, p in linear_places(shared).items() if len(p) > 1)
    before = list(quantized)[: list(quantized).index(name)]
    whole = packed.with_weights(shared, {n: quantized[n] for n in before})
    twin.load_state_dict(whole.state_dict())
    alone = calibration.layer_hessians(twin, [IDS])
    total = sum(alone[f"{place}.weight"] for place in places)
    weight = dict(shared.named_parameters())[name]
    expected = gptq.gptq_hessian(weight, total, 4)
    assert (quantized[name].codes() == expected.codes()).float().mean() > 0.999


def test_watching_sees_every_use_under_one_name(shared, twin):
    seen = {}
    for model in (shared, twin):
        seen[model] = []
        with watching(model, lambda name, x, found=seen[model]: found.append((name, x))):
            run(model)
    assert len(seen[shared]) == len(seen[twin]) == 4 * CONFIG.n_layer
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(seen[shared], seen[twin], strict=True))
    assert {name for name, _ in seen[shared]} == set(linear_layers(shared))


def test_places_share_again_what_a_library_made_apart(shared, twin):
    again = share_as(int8.dynamic_int8(twin), shared)
    assert sum(isinstance(m, int8.Int8Linear) for m in again.modules()) == len(
        linear_layers(shared)
    )
    assert torch.equal(run(again), run(int8.dynamic_int8(shared)))
