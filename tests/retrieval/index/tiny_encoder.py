"""A real encoder folder, built in a moment: a tokenizer of whole words and an ONNX model that looks up their vectors.

The vectors of different words are orthogonal, so texts are as near as they share words, and expectations can be worked
out by hand. ``[CLS]``, ``[SEP]``, ``:`` and the prefixes' words have vectors of their own.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def build_tiny_encoder(path: Path, words: Iterable[str]) -> dict[str, int]:
    """Write ``model.onnx`` and ``tokenizer.json`` to the folder ``path``; return the axis of each word's vector."""
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, ":", "query", "passage", *sorted(set(words))])}
    path.mkdir(parents=True)
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    )
    tokenizer.save(str(path / "tokenizer.json"))
    onnx.save(_lookup(np.eye(len(vocabulary), dtype=np.float32)), str(path / "model.onnx"))
    return vocabulary


def _lookup(table: "np.ndarray[tuple[int, int], np.dtype[np.float32]]") -> onnx.ModelProto:
    """A graph from ``input_ids`` and ``attention_mask`` to ``last_hidden_state``; the mask changes nothing in it."""
    shape = ["batch", "tokens"]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("input_ids", "attention_mask")]
    output = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*shape, table.shape[1]])
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"])]
    graph = helper.make_graph(nodes, "lookup", inputs, [output], [numpy_helper.from_array(table, "table")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model
