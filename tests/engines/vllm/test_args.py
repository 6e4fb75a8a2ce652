"""Arguments of vLLM that an operator passes through."""

import pytest

from searchr1.engines.factory import EngineConfig, open_engine
from searchr1.engines.vllm.args import VllmInProcessConfig, start_llm
from searchr1.errors import ConfigurationError


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("model", "SEARCHR1_MODEL"),
        ("max_model_len", "SEARCHR1_MAX_CONTEXT_TOKENS"),
        ("--max-model-len", "SEARCHR1_MAX_CONTEXT_TOKENS"),
        ("max-num-seqs", "SEARCHR1_MAX_NUM_SEQS"),
        ("scheduling_policy", "SEARCHR1_ENGINE_PRIORITY"),
        ("worker_extension_cls", "relies on it"),
    ],
)
async def test_what_has_a_setting_of_its_own_is_refused_before_anything_starts(name: str, setting: str) -> None:
    with pytest.raises(ConfigurationError, match=setting):
        async with open_engine(EngineConfig("vllm", "m", engine_args={name: 1})):
            pass


@pytest.mark.parametrize("kind", ["vllm-http", "vllm-replicas", "transformers"])
async def test_an_engine_that_takes_none_says_so(kind: str) -> None:
    urls = ("http://127.0.0.1:9",) if kind.startswith("vllm") else ()
    with pytest.raises(ConfigurationError, match=f"the engine '{kind}' is none"):
        async with open_engine(EngineConfig(kind, "m", urls=urls, engine_args={"swap_space": 1})):
            pass


@pytest.mark.vllm
@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"tensor_paralel_size": 2}, "no engine argument 'tensor_paralel_size': did you mean 'tensor_parallel_size'"),
        ({"--gpu-memory-utilisation": 0.5}, "did you mean 'gpu_memory_utilization'"),
        ({"x": 1}, "no engine argument 'x'$"),
        ({"quantization": "nonsense"}, "can't serve"),
        ({"tensor_parallel_size": "two"}, "can't serve"),
        ({"block_size": -1}, "can't serve"),
    ],
)
def test_what_vllm_does_not_know_or_take_is_told_in_one_line(
    args: dict[str, object], message: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from searchr1.demo.bundle import CHECKPOINT

    with pytest.raises(ConfigurationError, match=message) as raised:
        start_llm(VllmInProcessConfig(str(CHECKPOINT), engine_args=args, max_model_len=256))
    assert "\n" not in str(raised.value)
