import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from searchr1.errors import ConfigurationError
from searchr1.retrieval.index.encoder import EncoderSettings, HuggingFaceEncoder
from tests.retrieval.index.tiny_encoder import build_tiny_encoder

WORDS = ("mali", "bamako", "city", "river")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "tiny"
    build_tiny_encoder(path, WORDS)
    return path


def axes(folder: Path, vector: "np.ndarray[Any, Any]") -> dict[str, float]:
    """The words that a vector points along, by how far."""
    words = {row: word for word, row in Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab().items()}
    return {words[i]: round(float(value), 4) for i, value in enumerate(vector) if abs(value) > 1e-6}


def test_a_vector_is_the_mean_of_all_tokens_made_a_unit(folder: Path) -> None:
    encoder = HuggingFaceEncoder(folder, EncoderSettings("", ""))
    (vector,) = encoder.encode_queries(["Mali Mali Bamako"])
    length = 7**0.5
    ones = dict.fromkeys(("[CLS]", "[SEP]", "bamako"), round(1 / length, 4))
    assert axes(folder, vector) == {**ones, "mali": round(2 / length, 4)}
    assert vector.dtype == np.float32


def test_padding_changes_nothing(folder: Path) -> None:
    encoder = HuggingFaceEncoder(folder, EncoderSettings("", ""))
    texts = ["city", "Mali city river " * 9, "", "Bamako"] * 20
    together = encoder.encode_passages(texts)
    alone = np.concatenate([encoder.encode_passages([text]) for text in texts])
    assert together.shape == (80, encoder.info.dimension)
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


def test_the_first_token_can_stand_for_the_text(folder: Path) -> None:
    encoder = HuggingFaceEncoder(folder, EncoderSettings("", "", pooling="cls"))
    assert axes(folder, encoder.encode_queries(["Mali"])[0]) == {"[CLS]": 1}


def test_queries_and_passages_have_their_own_prefixes(folder: Path) -> None:
    encoder = HuggingFaceEncoder(folder)
    assert set(axes(folder, encoder.encode_queries(["Mali"])[0])) == {"[CLS]", "query", ":", "mali", "[SEP]"}
    assert set(axes(folder, encoder.encode_passages(["Mali"])[0])) == {"[CLS]", "passage", ":", "mali", "[SEP]"}


def test_only_the_first_tokens_count(folder: Path) -> None:
    encoder = HuggingFaceEncoder(folder, EncoderSettings("", "", max_tokens=4))
    assert set(axes(folder, encoder.encode_queries(["Mali city Bamako river"])[0])) == {
        "[CLS]",
        "mali",
        "city",
        "[SEP]",
    }


@pytest.mark.parametrize("text", ["\x00", "\ud800", "\U0010ffff", "Mali\u202e", "x" * 100_000])
def test_any_text_has_a_vector(folder: Path, text: str) -> None:
    (vector,) = HuggingFaceEncoder(folder).encode_queries([text])
    assert np.isfinite(vector).all()


def test_no_texts_have_no_vectors(folder: Path) -> None:
    encoder = HuggingFaceEncoder(folder)
    assert encoder.encode_queries([]).shape == (0, encoder.info.dimension)


def test_the_folder_may_hold_its_settings(folder: Path) -> None:
    (folder / "encoder.json").write_text(json.dumps({"query_prefix": "", "passage_prefix": "", "max_tokens": 9}))
    encoder = HuggingFaceEncoder(folder)
    assert encoder.info.settings == EncoderSettings("", "", "mean", 9)
    assert HuggingFaceEncoder(folder, EncoderSettings()).info.settings == EncoderSettings()


def test_info_tells_models_apart(tmp_path: Path, folder: Path) -> None:
    build_tiny_encoder(tmp_path / "same", WORDS)
    build_tiny_encoder(tmp_path / "other", [*WORDS[:3], "lake"])
    info = HuggingFaceEncoder(folder).info
    assert HuggingFaceEncoder(tmp_path / "same").info == info
    other = HuggingFaceEncoder(tmp_path / "other").info
    assert (other.dimension, other.model == info.model) == (info.dimension, False)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ConfigurationError, match=f"has no {re.escape(name)}"):
        HuggingFaceEncoder(folder)


def test_the_model_may_lie_in_a_folder_of_its_own(folder: Path) -> None:
    (folder / "onnx").mkdir()
    (folder / "model.onnx").rename(folder / "onnx" / "model.onnx")
    assert HuggingFaceEncoder(folder).info.dimension > 0


def test_a_missing_package_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigurationError, match="needs onnxruntime, which is not installed"):
        HuggingFaceEncoder(folder)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_damaged_file_is_a_configuration_error(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"not a model")
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        HuggingFaceEncoder(folder)


@pytest.mark.parametrize(
    "settings",
    [
        "",
        "[]",
        '{"prefix": ""}',
        '{"max_tokens": "9"}',
        '{"max_tokens": true}',
        '{"max_tokens": 0}',
        '{"pooling": "x"}',
    ],
)
def test_malformed_settings_are_refused(folder: Path, settings: str) -> None:
    (folder / "encoder.json").write_text(settings)
    with pytest.raises(ConfigurationError, match=re.escape("encoder.json")):
        HuggingFaceEncoder(folder)


@pytest.mark.process
def test_neither_torch_nor_the_runtime_is_imported_before_it_is_needed() -> None:
    module = "searchr1.retrieval.index.encoder"
    code = f"import sys, {module}; print(sorted({{'torch', 'onnxruntime', 'numpy'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")  # the exporter that needs no further package warns of many things
def test_a_bert_model_gives_what_torch_gives(folder: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(vocab_size=tokenizer.get_vocab_size(), attn_implementation="eager", **sizes)
    torch.manual_seed(0)
    bert = transformers.BertModel(config, add_pooling_layer=False).eval()
    _export(bert, folder / "model.onnx")
    encoder = HuggingFaceEncoder(folder, EncoderSettings("", ""))
    texts = ["Mali city", "Bamako river city Mali river"]
    vectors = encoder.encode_queries(texts)
    assert vectors.shape == (2, 16)
    for text, vector in zip(texts, vectors, strict=True):
        with torch.no_grad():
            state = bert(torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0].mean(dim=0)
        np.testing.assert_allclose(vector, (state / state.norm()).numpy(), atol=1e-5)


def _export(bert: Any, path: Path) -> None:
    import torch

    class States(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = bert

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            found = self.bert(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
            return found.last_hidden_state

    names = ["input_ids", "attention_mask", "token_type_ids"]
    axes = {name: {0: "batch", 1: "tokens"} for name in [*names, "last_hidden_state"]}
    example = (torch.ones((2, 4), dtype=torch.long),) * 3
    torch.onnx.export(
        States().eval(),
        example,
        str(path),
        dynamo=False,
        input_names=names,
        output_names=["last_hidden_state"],
        dynamic_axes=axes,
    )
    bert.eval()
