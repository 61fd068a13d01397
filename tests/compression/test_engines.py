"""Every engine runs the same function: a small random encoder in each, and MiniLM in OpenVINO."""

from pathlib import Path

import pytest
import torch

from efflab import evaluate, pretrained
from efflab.base.privacy import load
from efflab.compression import engines, openvino
from efflab.config import ModelConfig
from efflab.experiments import int8_engines as experiment
from efflab.experiments.record import machines, read_record
from efflab.model import Transformer

CONFIG = ModelConfig(2, 2, 64, 128, 200, 64, type_vocab=2, pooler=True)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Transformer(CONFIG).eval()


@pytest.fixture(scope="module")
def batch():
    ids = torch.randint(0, 200, (3, 24), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 10:] = 0
    return ids, mask


MAKERS = {
    "bf16": lambda m, folder, data: engines.bf16(m),
    "dynamic": lambda m, folder, data: engines.torch_dynamic(m),
    "table": lambda m, folder, data: engines.torch_dynamic(m, table=True),
    "smoothed": lambda m, folder, data: engines.torch_smoothed(m, data),
    "static": lambda m, folder, data: engines.torch_static(m, data),
    "torchao": lambda m, folder, data: engines.torchao_int8(m),
    "onnx": lambda m, folder, data: engines.onnx_int8(m, folder),
    "openvino-fp32": lambda m, folder, data: engines.openvino_fp32(m, folder),
    "openvino": engines.openvino_int8,
}


@pytest.mark.parametrize("name", MAKERS)
def test_engine_gives_the_models_embeddings(name, model, batch, tmp_path):
    exact = engines.fp32(model).embed(*batch)
    torch.testing.assert_close(exact, pretrained.mean_pool(model.encode(*batch), batch[1]))
    engine = MAKERS[name](model, tmp_path, [batch])
    for ids, mask in (batch, (batch[0][:1, :7], batch[1][:1, :7])):  # another shape as well
        found = engine.embed(ids, mask)
        torch.testing.assert_close(found.norm(dim=-1), torch.ones(len(ids)))
        cosine = evaluate.cosines(found, engines.fp32(model).embed(ids, mask))
        assert cosine["min"] > (0.999999 if name == "openvino-fp32" else 0.98)


def test_sizes_tell_what_stayed_in_float(tmp_path):
    torch.manual_seed(0)
    big = Transformer(ModelConfig(1, 2, 256, 1024, 2000, 64)).eval()
    full = engines.fp32(big).nbytes
    linear, table = 3 * 256 * 256 + 256 * 256 + 2 * 256 * 1024, 2000 * 256
    saved = full - engines.torch_dynamic(big).nbytes
    assert saved == pytest.approx(3 * linear, rel=0.03)
    more = full - engines.torch_dynamic(big, table=True).nbytes
    assert more - saved == pytest.approx(3 * table, rel=0.03)
    assert engines.bf16(big).nbytes == pytest.approx(full / 2, rel=0.02)
    batch = torch.arange(64)[None], torch.ones(1, 64, dtype=torch.long)
    smoothed = engines.torch_smoothed(big, [batch])
    assert full - smoothed.nbytes == pytest.approx(more, rel=0.03)
    assert smoothed.name == "torch dynamic INT8, smoothed"


def test_smoothing_changes_no_output(model, batch):
    smooth = openvino.smooth_model(model, [batch])
    torch.testing.assert_close(smooth.encode(*batch), model.encode(*batch), atol=1e-4, rtol=1e-4)


def test_openvino_needs_calibration(model, tmp_path):
    with pytest.raises(ValueError, match="calibration"):
        engines.openvino_int8(model, tmp_path, [])


def test_cpu_features_are_consistent():
    features = engines.cpu_features()
    assert set(features) == {"avx2", "avx512", "vnni", "amx", "bf16"}
    if Path("/proc/cpuinfo").exists():
        assert features["avx2"] >= features["avx512"]


@pytest.mark.parametrize("vnni", [True, False])
def test_seven_bits_are_for_cpus_without_vnni(monkeypatch, vnni):
    monkeypatch.setattr("efflab.compression.openvino.cpu_features", lambda: dict(vnni=vnni))
    assert openvino.seven_bits_needed() is not vnni


@pytest.mark.parametrize(("seven_bits", "most"), [(True, 64), (False, 128)])
def test_seven_bits_leave_one_unused(model, batch, tmp_path, monkeypatch, seven_bits, most):
    """The largest weight code in OpenVINO's and ONNX Runtime's files; torch's input observers."""
    import onnx

    features = dict(vnni=not seven_bits)
    monkeypatch.setattr("efflab.compression.openvino.cpu_features", lambda: features)
    ov = load("openvino")
    engines.openvino_int8(model, tmp_path, [batch])
    nodes = ov.Core().read_model(tmp_path / "int8.xml").get_ops()
    codes = [n.get_data() for n in nodes if n.get_type_name() == "Constant"]
    tables = CONFIG.vocab_size, CONFIG.type_vocab  # looked up, so that nothing is added up
    products = [c for c in codes if c.dtype == "int8" and len(c) not in tables]
    assert most / 2 < max(int(abs(c.astype(int)).max()) for c in products) <= most

    engines.onnx_int8(model, tmp_path)
    stored = onnx.load(tmp_path / "int8.onnx").graph.initializer
    codes = [onnx.numpy_helper.to_array(t) for t in stored if t.data_type == onnx.TensorProto.INT8]
    assert most / 2 < max(int(abs(c.astype(int)).max()) for c in codes if c.size) <= most

    observers = [
        m for m in engines.prepare_static(model).modules() if type(m).__name__ == "MinMaxObserver"
    ]
    assert {o.quant_max for o in observers} == {127 if seven_bits else 255}


def test_calibration_and_judgement_share_no_docstring():
    calibration, judged = experiment.functions()
    assert len(calibration) == experiment.N_CALIBRATION
    assert len(judged) == experiment.N_TEST == 300
    assert not {f.query for f in calibration} & {f.query for f in judged}


@pytest.mark.release
def test_minilm_in_openvino_meets_its_targets(tmp_path):
    model, tokenizer = pretrained.load_minilm()
    engine = engines.openvino_int8(model, tmp_path, experiment.calibration(tokenizer))
    assert engine.nbytes <= 0.26 * engines.fp32(model).nbytes
    found = experiment.quality(engine, tokenizer)
    assert found["cosine p5"] >= 0.995
    assert found["cosine min"] >= 0.99
    assert abs(found["mrr"] - found["mrr fp32"]) <= 0.01


def test_record_has_every_engine_on_every_machine():
    assert len(machines(experiment.NAME)) >= 2
    for machine in machines(experiment.NAME):
        kept = read_record(experiment.NAME, machine)
        assert {"command", "date", "commit", "versions", "seeds"} <= set(kept)
        rows = kept["runs"]
        assert [row["engine"] for row in rows] == list(experiment.ENGINES)
        assert rows[0]["size"] == rows[0]["16x128"] == 1
        for row in rows:
            assert 0 < row["size"] <= 1
            assert all(row[f"{b}x{t}"] > 0 for b, t in experiment.SHAPES)
            assert row["cosine min"] <= row["cosine p5"] <= 1.001
        assert set(kept["features"]) == set(engines.cpu_features())


def test_embeddings_keep_the_texts_order():
    model, tokenizer = pretrained.load_minilm()
    texts = ["open a file for reading and return it to the caller", "add", "sort a list"]
    found = experiment.embeddings(engines.fp32(model), tokenizer, texts, batch_size=2)
    alone = torch.cat([experiment.embeddings(engines.fp32(model), tokenizer, [t]) for t in texts])
    torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-4)
