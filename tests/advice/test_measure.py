"""`efflab measure`: a decoder of today, a checkpoint of ours and an encoder, from their folders."""

import json

import pytest
import torch
import transformers

from efflab.advice import measure as measuring
from efflab.advice.measure import load_local, measure, report, windows
from efflab.bench import one_thread
from efflab.cli import main
from efflab.config import PRESETS
from efflab.data import STDLIB_GPT
from efflab.experiments.decoder_steps import NAME
from efflab.experiments.provenance import machine
from efflab.experiments.record import EXPERIMENTS
from efflab.pretrained import minilm_folder

FORMATS = ("torch fp32", "OpenVINO int4")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with the steps to fit to, as if they had been timed on this machine."""
    folder = tmp_path_factory.mktemp("runs")
    record = json.loads((EXPERIMENTS / f"{NAME}.json").read_text("utf-8"))
    with one_thread():
        record["machines"][-1]["machine"] = machine()
    (folder / f"{NAME}.json").write_text(json.dumps(record))
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    sizes = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, vocab_size=300)
    sizes |= dict(num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64)
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes))
    model.save_pretrained(folder, max_shard_size="100KB")
    return folder


def quiet(line: str) -> None:
    """Progress that nobody reads."""


def test_a_decoder_that_transformers_saved_is_measured_beside_its_prediction(llama, runs):
    result = measure(llama, formats=FORMATS, runs=runs, say=quiet)
    assert [row["format"] for row in result["rows"]] == [*FORMATS]
    for row in result["rows"]:
        for phase in ("prefill", "decode"):
            assert row[phase]["ms"] > 0
            assert row[phase]["low"] < row[phase]["predicted"] < row[phase]["high"]
        assert row["quality"] is None
    assert result["rows"][1]["nbytes"] < result["rows"][0]["nbytes"] / 3
    lines = report(result).splitlines()
    assert lines[1].split() == ["format", "MB", "prefill", "ms", "tokens/s"]
    assert "bits:" not in report(result)


def test_what_a_format_costs_on_a_text_is_measured(runs):
    text = "import os\n\n\ndef size(path):\n    return os.stat(path).st_size\n" * 40
    result = measure(STDLIB_GPT.parent, text, FORMATS, runs=runs, say=quiet)
    plain, small = (row["quality"] for row in result["rows"])
    assert plain["value"] == plain["low"] == plain["high"] == 0
    assert 0 < small["value"] < 1
    assert small["bits"] == pytest.approx(plain["bits"] + small["value"])
    assert "bits:" in report(result)


def test_an_encoder_is_measured_by_the_direction_of_its_vectors(runs):
    text = "Reads a file.\n\nWrites a file.\nOpens a socket.\n"
    result = measure(minilm_folder(), text, FORMATS, runs=runs, say=quiet)
    plain, small = (row["quality"]["value"] for row in result["rows"])
    assert plain == pytest.approx(1)
    assert 0.5 < small < 0.999
    assert "decode" not in result["rows"][0]
    assert "cosine" in report(result)


def test_times_of_a_busy_machine_say_so(llama, runs):
    result = measure(llama, formats=FORMATS[:1], runs=runs, say=quiet)
    assert "measure again" in " ".join(report(result | dict(busy_cores=1.2)).split())
    assert "measure again" not in report(result | dict(busy_cores=0.1))


def test_constants_are_fitted_once_on_a_machine_that_has_none(tmp_path, monkeypatch):
    told, calls = [], []

    def run(folder):
        calls.append(folder)
        return json.loads((EXPERIMENTS / f"{NAME}.json").read_text("utf-8"))["machines"][-1]

    monkeypatch.setattr(measuring.decoder_steps, "run", run)
    monkeypatch.setattr(measuring, "EXPERIMENTS", tmp_path / "none")
    constants = measuring.constants_here(told.append, tmp_path)
    assert calls == [tmp_path]
    assert "torch fp32" in constants
    assert "once on this machine" in told[0]


def test_windows_are_spread_over_the_text():
    config = PRESETS["stdlib-gpt"]
    assert windows(list(range(1000)), config).tolist()[-1][-1] == 999
    assert windows([1, 2, 3], config).tolist() == [[1, 2, 3]]
    with pytest.raises(ValueError, match="text=2: expected at least three tokens"):
        windows([1, 2], config)


def test_what_cannot_be_measured_is_refused_before_work(llama, tmp_path, capsys):
    options = dict(runs=tmp_path, say=quiet)
    with pytest.raises(ValueError, match="formats='int3': expected one of"):
        measure(llama, formats=["int3"], **options)
    with pytest.raises(ValueError, match=r"formats=\[\]: expected one format or more"):
        measure(llama, formats=(), **options)
    (tmp_path / "latin.txt").write_bytes("Größe".encode("latin-1"))
    with pytest.raises(ValueError, match=r"--text='.*latin\.txt': expected a file in UTF-8"):
        measuring.measure_folder(llama, tmp_path / "latin.txt")
    with pytest.raises(ValueError, match=r"text='given': expected a tokenizer\.json"):
        measure(llama, "a text", **options)
    with pytest.raises(ValueError, match=r"folder=.*: expected a folder"):
        load_local(tmp_path / "none")
    assert main(["measure", str(tmp_path / "none")]) == 1
    assert "expected a folder" in capsys.readouterr().err
