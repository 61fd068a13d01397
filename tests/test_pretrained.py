"""Checkpoints belong to their cards, encoders are loaded whole, every text has a vector."""

import json
import shutil

import pytest
import torch
import transformers as library
from safetensors.torch import load_file, save_file

from efflab import pretrained
from efflab.compression.pruning import prune_heads
from efflab.config import ModelConfig
from efflab.model import Transformer
from efflab.structure.sharing import share_qkv

TINY = ModelConfig(2, 2, 16, 32, 20, 8, causal=True)


def make(config=TINY):
    torch.manual_seed(0)
    return Transformer(config)


# --- Checkpoints -----------------------------------------------------------------------------


def test_a_checkpoint_reloads_to_the_same_outputs(tmp_path):
    model, path = make().eval(), tmp_path / "m" / "model.safetensors"
    pretrained.save_checkpoint(model, path, {"steps": 3})
    ids = torch.arange(8)[None]
    loaded = pretrained.load_checkpoint(path)
    assert loaded.config == TINY
    torch.testing.assert_close(loaded(ids), model(ids), atol=2e-3, rtol=0)  # stored in 16 bits
    again = tmp_path / "again" / "model.safetensors"
    pretrained.save_checkpoint(loaded, again, {"steps": 3})
    assert torch.equal(pretrained.load_checkpoint(again)(ids), loaded(ids))
    assert json.loads(path.with_name("card.json").read_text())["steps"] == 3


def test_a_damaged_checkpoint_is_named_with_both_hashes(tmp_path):
    path = tmp_path / "model.safetensors"
    pretrained.save_checkpoint(make(), path, {})
    expected = pretrained.read_card(path)["sha256"]
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="damaged: expected SHA-256") as error:
        pretrained.load_checkpoint(path)
    assert str(path) in str(error.value)
    assert expected in str(error.value)
    assert pretrained.sha256(path) in str(error.value)


def test_a_missing_checkpoint_says_what_makes_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"card\.json is missing; .*save_checkpoint"):
        pretrained.load_checkpoint(tmp_path / "model.safetensors")
    pretrained.save_checkpoint(make(), tmp_path / "model.safetensors", {})
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors is missing"):
        pretrained.load_checkpoint(tmp_path / "model.safetensors")


def test_each_checkpoint_of_a_folder_has_its_own_card(tmp_path):
    for width in (16, 32):
        config = ModelConfig(2, 2, width, 32, 20, 8, causal=True)
        pretrained.save_checkpoint(
            make(config), tmp_path / f"{width}.safetensors", {"width": width}
        )
    for width in (16, 32):
        path = tmp_path / f"{width}.safetensors"
        assert pretrained.load_checkpoint(path).config.d_model == width
        assert pretrained.read_card(path)["width"] == width
    names = ["16.card.json", "16.safetensors", "32.card.json", "32.safetensors"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    shutil.copy(tmp_path / "32.safetensors", tmp_path / "16.safetensors")
    with pytest.raises(ValueError, match=r"16\.safetensors is damaged.*save_checkpoint"):
        pretrained.load_checkpoint(tmp_path / "16.safetensors")


def test_the_shipped_files_have_their_own_remedy(monkeypatch, tmp_path):
    path = tmp_path / "model.safetensors"
    monkeypatch.setattr(pretrained, "STDLIB_GPT", path)
    with pytest.raises(FileNotFoundError, match=r"missing; .*`efflab train stdlib-gpt` makes it"):
        pretrained.load_checkpoint(path)


def test_the_shipped_model_goes_with_its_tokenizer(monkeypatch, tmp_path):
    other = tmp_path / "tokenizer.json"
    other.write_bytes(pretrained.TOKENIZER_FILE.read_bytes() + b" ")
    monkeypatch.setattr(pretrained, "TOKENIZER_FILE", other)
    with pytest.raises(ValueError, match=r"tokenizer\.json is damaged"):
        pretrained.load_stdlib_gpt()


def reword(card, **changes):
    """Change a card and hash it anew, as someone would who means to deceive."""
    card |= changes
    return card | {"card_sha256": pretrained._card_hash(card)}


HUGE = dict(n_layer=10**9)


@pytest.mark.parametrize(
    "change",
    [
        lambda card: card | {"config": card["config"] | {"norm_eps": 1e-3}},
        lambda card: card | {"config": card["config"] | {"activation": "relu"}},
        lambda card: card | {"config": card["config"] | HUGE},
        lambda card: card | {"seed": 1},
        lambda card: {k: v for k, v in card.items() if k != "card_sha256"},
        lambda card: reword(card, config=card["config"] | HUGE),
        lambda card: reword(card, config=card["config"] | {"n_layer": 1}),
        lambda card: reword(card, config=card["config"] | {"vocab_size": 8, "max_len": 20}),
        lambda card: reword(card, config=card["config"] | {"n_layer": -1}),
        lambda card: reword(card, config=card["config"] | {"n_layer": "2"}),
        lambda card: reword(card, config=card["config"] | {"n_expert": 2}),
        lambda card: reword(card, config=None),
        lambda card: [card],
        lambda card: None,
    ],
)
def test_a_card_that_says_something_else_is_refused(tmp_path, change):
    path = tmp_path / "m.safetensors"
    card = pretrained.save_checkpoint(make(), path, {"seed": 0})
    (tmp_path / "m.card.json").write_text(json.dumps(change(card)))
    with pytest.raises(ValueError, match=r"m\.(card\.json|safetensors)"):
        pretrained.load_checkpoint(path)


@pytest.mark.parametrize("n", [0, 1, 40, -2])
def test_a_card_cut_short_is_refused_with_its_name_and_remedy(tmp_path, n):
    path = tmp_path / "m.safetensors"
    pretrained.save_checkpoint(make(), path, {"seed": 0})
    card = tmp_path / "m.card.json"
    for broken in (card.read_bytes()[:n], b"\xff\xfe", b"[" * 10**5):
        card.write_bytes(broken)
        with pytest.raises(ValueError, match=r"m\.card\.json is damaged.*save_checkpoint"):
            pretrained.read_card(path)


def with_value(name, value):
    model = make()
    dict(model.named_parameters())[name].data.view(-1)[3] = value
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (prune_heads(make(), {0: [1]}), r"model\.config: layers\.0\.attention.*the model's shape"),
        (share_qkv(make(), 2), r"model\.config: .*missing: layers\.1\.attention"),
        (with_value("embedding.token.weight", 1e5), r"embedding\.token\.weight=.* not in float16"),
        (with_value("final_norm.bias", torch.nan), r"final_norm\.bias=.* not in float16"),
    ],
)
def test_what_could_not_be_loaded_again_is_not_saved(tmp_path, model, message):
    with pytest.raises(ValueError, match=message):
        pretrained.save_checkpoint(model, tmp_path / "m.safetensors", {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "card", [{"loss": float("nan")}, {"model": make}, {"path": {1: 2}, "at": {3}}, {3: "steps"}]
)
def test_a_card_that_json_cannot_hold_is_refused_by_name(tmp_path, card):
    with pytest.raises(ValueError, match="card="):
        pretrained.save_checkpoint(make(), tmp_path / "m.safetensors", card)
    assert not list(tmp_path.iterdir())


def test_a_card_that_says_no_hash_is_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    card = pretrained.save_checkpoint(make(), path, {})
    (tmp_path / "m.card.json").write_text(json.dumps(reword(card, sha256=None)))
    with pytest.raises(ValueError, match=r"m\.card\.json is damaged: sha256=None"):
        pretrained.load_checkpoint(path)


# --- Encoders --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A folder with a small BERT and MiniLM's tokenizer."""
    folder = tmp_path_factory.mktemp("bert")
    for file in pretrained.minilm_folder().iterdir():
        if file.suffix in (".json", ".txt"):
            shutil.copy(file, folder)
    sizes = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64)
    torch.manual_seed(0)
    library.BertModel(library.BertConfig(**sizes)).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(bert, tmp_path):
    return shutil.copytree(bert, tmp_path / "bert")


def edit(folder, change):
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, {"format": "pt"})


LAYER = "encoder.layer.1.output.dense."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {n: t for n, t in w.items() if "layer.1." not in n}, "missing: encoder.layer.1"),
        (lambda w: {n: t for n, t in w.items() if n != LAYER + "bias"}, f"missing: {LAYER}bias"),
        (lambda w: w | {"encoder.layer.3.output.dense.bias": torch.ones(32)}, "unknown: enc.*3"),
        (lambda w: w | {LAYER + "lora_A.weight": torch.ones(4, 32)}, "unknown: .*lora_A"),
        (lambda w: w | {LAYER + "weight": torch.ones(32, 63)}, f"of another shape: {LAYER}"),
    ],
)
def test_an_encoder_that_is_not_whole_is_refused(folder, change, message):
    edit(folder, change)
    with pytest.raises(ValueError, match=message) as error:
        pretrained.load_minilm(folder)
    assert str(folder) in str(error.value)


def test_heads_are_left_out_and_a_missing_pooler_stays_missing(folder):
    heads = {"cls.predictions.bias": torch.ones(9)}
    edit(folder, lambda w: {n: t for n, t in w.items() if "pooler" not in n} | heads)
    first, again = (pretrained.load_minilm(folder)[0] for _ in range(2))
    assert first.pooler is None
    assert not first.config.pooler
    for p, q in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]
)
def test_half_a_file_of_an_encoder_is_refused_with_the_folder_and_remedy(folder, name):
    raw = (folder / name).read_bytes()
    (folder / name).write_bytes(raw[: len(raw) // 2])
    with pytest.raises(ValueError, match=r"bert is damaged: .*; fetch the model anew"):
        pretrained.load_minilm(folder)


def test_a_hub_id_without_a_network_is_named(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=r"^nobody/nothing is missing: expected a folder"):
        pretrained.load_encoder("nobody/nothing")


@pytest.mark.parametrize("name", pretrained.MINILM_FILES)
def test_minilm_is_read_from_files_of_known_hashes_alone(monkeypatch, tmp_path, name):
    known = pretrained.minilm_folder()
    broken = tmp_path / "package" / "model"
    shutil.copytree(known, broken)
    (broken / name).write_bytes((broken / name).read_bytes() + b" ")
    spec = type("Spec", (), {"submodule_search_locations": [str(broken.parent)]})
    monkeypatch.setattr(pretrained, "find_spec", lambda _: spec)
    with pytest.raises(ValueError, match=rf"{name} is damaged: .*; reinstall"):
        pretrained.minilm_folder()


# --- Texts -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(bert):
    return pretrained.load_minilm(bert)


@pytest.mark.parametrize("text", ["", " ", "中文", "x" * 5000, "[PAD]"])
def test_every_text_has_a_vector(small, text):
    vector = pretrained.embed(*small, [text], max_len=16)
    assert vector.shape == (1, 32)
    assert vector.norm() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("texts", "options", "error", "message"),
    [
        ([], {}, ValueError, "texts=.*at least one text"),
        ("one text", {}, TypeError, "texts='one text': expected an iterable, got str"),
        ([None], {}, TypeError, r"texts\[0\]=None"),
        (["a"], {"batch_size": 0}, ValueError, "batch_size=0"),
        (["a"], {"batch_size": -1}, ValueError, "batch_size=-1"),
        (["a"], {"max_len": 0}, ValueError, "max_len=0"),
    ],
)
def test_bad_texts_and_numbers_are_named(small, texts, options, error, message):
    with pytest.raises(error, match=message):
        pretrained.embed(*small, texts, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_row_of_padding_pools_to_zeros(dtype):
    hidden = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    mask = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0]])
    pooled = pretrained.mean_pool(hidden, mask)
    expected = torch.nn.functional.normalize(hidden[0, :2].float().mean(0), dim=-1)
    torch.testing.assert_close(pooled[0].float(), expected, atol=0.01, rtol=0)
    assert not pooled[1].any()
    with pytest.raises(ValueError, match=r"attention_mask\.shape=\(2, 3\): expected \(2, 4\)"):
        pretrained.mean_pool(hidden, mask[:, 1:])
