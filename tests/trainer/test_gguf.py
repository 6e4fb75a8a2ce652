"""GGUF files: a tiny one becomes a folder that loads, and what is wrong with others is told."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from searchr1.cli.main import app
from searchr1.errors import ConfigurationError
from searchr1.tokenizer import Tokenizer
from searchr1.trainer import gguf as module
from searchr1.trainer.gguf import convert, inspect

TEMPLATE = "{% for message in messages %}<|im_start|>{{ message['content'] }}<|im_end|>\n{% endfor %}"
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *(chr(code) for code in range(33, 127)), "Ġ", "Ċ", "ab"]
HIDDEN, LAYERS, HEADS, MLP = 32, 2, 2, 64


def write_gguf(path: Path, *, leave_out: str = "", bad: str = "", **fields: Any) -> Path:
    """Write a random Llama of two layers in float32, with a byte-level vocabulary; ``fields`` replace metadata."""
    gguf: Any = pytest.importorskip("gguf")
    architecture = fields.pop("architecture", "llama")
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_license("apache-2.0")
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, 3, *[1] * (len(TOKENS) - 3)])
    writer.add_token_merges([fields.pop("merges", "a b")])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(fields.pop("eos", 2))
    if (eot := fields.pop("eot", None)) is not None:
        writer.add_eot_token_id(eot)
    if (add_bos := fields.pop("add_bos", None)) is not None:
        writer.add_add_bos_token(add_bos)
    if (template := fields.pop("template", TEMPLATE)) is not None:
        writer.add_chat_template(template)
    for name, value in fields.items():
        writer.add_uint16(name, value)
    torch.manual_seed(0)
    for name, shape in shapes().items():
        if name != leave_out:
            weights = torch.randn(shape) if name != bad else torch.full(shape, float("nan"))
            writer.add_tensor(name, weights.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of a Llama's weights as llama.cpp has them; the embedding is the head, too."""
    of_layer = {
        "attn_norm": (HIDDEN,),
        "ffn_norm": (HIDDEN,),
        **{f"attn_{part}": (HIDDEN, HIDDEN) for part in ("q", "k", "v", "output")},
        "ffn_gate": (MLP, HIDDEN),
        "ffn_up": (MLP, HIDDEN),
        "ffn_down": (HIDDEN, MLP),
    }
    layers = {f"blk.{n}.{name}.weight": shape for n in range(LAYERS) for name, shape in of_layer.items()}
    return {"token_embd.weight": (len(TOKENS), HIDDEN), "output_norm.weight": (HIDDEN,)} | layers


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", add_bos=False, eot=0)


def test_a_file_becomes_a_folder_that_loads(file: Path, tmp_path: Path) -> None:
    said: list[str] = []
    converted = convert(file, tmp_path / "out", tell=said.append)
    assert said[0] == f"tiny.gguf: llama, {converted.info.num_weights:,} weights"
    assert "license apache-2.0" in str(converted)
    untyped: Any = AutoModelForCausalLM
    model = untyped.from_pretrained(converted.folder)
    assert model.dtype == torch.bfloat16
    assert not hasattr(model.config, "quantization_config")
    torch.manual_seed(0)
    embedding = torch.randn(len(TOKENS), HIDDEN).bfloat16()
    assert torch.equal(model.get_input_embeddings().weight, embedding)
    assert model.get_output_embeddings().weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    tokenizer = Tokenizer.load(str(converted.folder))
    assert tokenizer.render("hi") == "<|im_start|>hi<|im_end|>\n"
    assert tokenizer.encode_prompt(tokenizer.render("hi"))[0] == 1
    assert tokenizer.vocab_size == len(TOKENS)
    generation = json.loads((converted.folder / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [2, 0]
    config = json.loads((converted.folder / "tokenizer_config.json").read_text())
    assert config["add_bos_token"] is False
    assert "is_local" not in config
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in converted.folder.iterdir())


@pytest.mark.parametrize(("add_bos", "rendered"), [(True, "<|im_start|>hi"), (False, "hi"), (None, "hi")])
def test_bos_is_put_where_the_file_says_so(tmp_path: Path, add_bos: bool | None, rendered: str) -> None:
    folder = convert(
        write_gguf(tmp_path / "a.gguf", add_bos=add_bos, template=None), tmp_path / "out", progress=False
    ).folder
    assert Tokenizer.load(str(folder)).render("hi") == rendered


def test_a_folder_that_is_there_stays_unless_asked_otherwise(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(ConfigurationError, match="not a model's folder"):
            convert(file, out, overwrite=overwrite, progress=False)
    (out / "config.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="--overwrite"):
        convert(file, out, progress=False)
    assert (out / "mine.txt").read_text() == "mine"
    convert(file, out, overwrite=True, progress=False)
    assert not (out / "mine.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"architecture": "clip"}, "architecture 'clip', which transformers does not read from GGUF; it reads .*llama"),
        ({"split.count": 3}, "one of 3 parts"),
        ({"leave_out": "blk.1.ffn_up.weight"}, "lacks 1 weights of its model, the first: model.layers.1.mlp.up_proj"),
        ({"merges": "x y"}, "the tokenizer in .*a.gguf can't be read: .*`xy` out of vocabulary"),
        ({"bad": "blk.0.attn_q.weight"}, "not finite, the first: model.layers.0.self_attn.q_proj"),
    ],
)
def test_another_kind_of_model_is_told(tmp_path: Path, fields: dict[str, Any], says: str) -> None:
    file = write_gguf(tmp_path / "a.gguf", **fields)
    with pytest.raises(ConfigurationError, match=says):
        convert(file, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_told(file: Path, tmp_path: Path, share: float) -> None:
    whole = file.read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ConfigurationError, match=r"cut\.gguf is (no GGUF|damaged or cut off|cut off)"):
        inspect(cut)


def test_what_is_no_gguf_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACKAGES", ())
    other = tmp_path / "model.safetensors"
    other.write_bytes(b"\x00" * 100)
    with pytest.raises(ConfigurationError, match="is no GGUF file"):
        convert(other, tmp_path / "out", progress=False)
    with pytest.raises(ConfigurationError, match=r"gone\.gguf can't be read: No such file"):
        convert(tmp_path / "gone.gguf", tmp_path / "out", progress=False)


def test_a_package_that_is_missing_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACKAGES", ("no_such_package",))
    done = CliRunner().invoke(app, ["model", "from-gguf", str(tmp_path / "a.gguf"), str(tmp_path / "out")])
    assert isinstance(done.exception, ConfigurationError)
    assert "needs no_such_package, which is not installed: pip install '.[gguf]'" in str(done.exception)


def test_a_disk_that_is_too_small_is_told_before_the_work(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real._replace(free=1000))
    with pytest.raises(ConfigurationError, match=r"needs 0\.0 GB, and 0\.0 GB are free"):
        convert(file, tmp_path / "out", progress=False)
