"""The logits processor: each request's next token is its script's, wherever in the batch it stands."""

from pathlib import Path
from typing import Any

import pytest

from loadtests.agents.script import CHECKPOINT as CHECKPOINT_VARIABLE
from loadtests.agents.script import SCRIPT, Script
from searchr1.demo.bundle import CHECKPOINT
from searchr1.tokenizer import Tokenizer

pytestmark = pytest.mark.vllm
EOS = 3


@pytest.fixture
def processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("vllm")
    Script({"0001": [[10, 11], [12]], "0002": [[20]]}, eos_id=EOS).write(tmp_path / "script.json")
    monkeypatch.setenv(SCRIPT, str(tmp_path / "script.json"))
    monkeypatch.setenv(CHECKPOINT_VARIABLE, str(CHECKPOINT))
    import torch

    from loadtests.agents.forcing import Scripted

    return Scripted(None, torch.device("cpu"), False)  # type: ignore[arg-type]


def test_tokens_follow_the_script_to_the_end_of_the_text(processor: Any) -> None:
    import torch
    from vllm import SamplingParams
    from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality

    tokenizer = Tokenizer.load(str(CHECKPOINT))

    def chosen() -> list[int]:
        return [int(row.argmax()) for row in processor.apply(torch.zeros(3, 64))]

    prompts = ["(run 0001) Who?", "Who?", "(run 0001) Who? <search> a </search>"]
    written: list[list[int]] = [[], [], []]
    added = [(n, SamplingParams(), tokenizer.encode(prompt), written[n]) for n, prompt in enumerate(prompts)]
    processor.update_state(BatchUpdate(3, removed=[], added=added, moved=[]))
    assert chosen() == [10, 0, 12]
    written[0].append(10)
    written[2].append(12)
    processor.update_state(None)
    assert chosen() == [11, 0, EOS]
    processor.update_state(BatchUpdate(3, removed=[], added=[], moved=[(0, 2, MoveDirectionality.SWAP)]))
    assert chosen() == [EOS, 0, 11]
    processor.update_state(BatchUpdate(3, removed=[0], added=[], moved=[]))
    assert chosen() == [0, 0, 11]
