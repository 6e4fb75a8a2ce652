"""Arguments of vLLM that an operator passes through."""

import os
import sys

import pytest
from typer.testing import CliRunner

from searchr1.cli.main import app
from searchr1.engines.factory import EngineConfig, open_engine
from searchr1.engines.vllm.args import VllmInProcessConfig, start_llm
from searchr1.errors import ConfigurationError
from searchr1.settings import Settings


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


@pytest.mark.parametrize("kind", ["vllm-http", "vllm-pool", "transformers"])
async def test_an_engine_that_takes_none_says_so(kind: str) -> None:
    urls = ("http://127.0.0.1:9",) if kind.startswith("vllm") else ()
    with pytest.raises(ConfigurationError, match=f"the engine '{kind}' is none"):
        async with open_engine(EngineConfig(kind, "m", urls=urls, engine_args={"swap_space": 1})):
            pass


def test_what_is_given_reaches_the_engine_options_over_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Settings] = []
    monkeypatch.setattr("searchr1.gateway.process.serve_forever", lambda settings, **_: served.append(settings))
    monkeypatch.setenv("SEARCHR1_ENGINE_ARGS", '{"tensor_parallel_size": 8, "seed": 1}')
    words = ["serve", "--model", "m", "--retriever", "index:none", "--engine-arg", "tensor_parallel_size=4"]
    more = ["--engine-arg", "--quantization=fp8", "--engine-arg", 'hf_overrides={"a": [1]}', "--engine-arg", "x="]
    done = CliRunner().invoke(app, [*words, *more])
    assert done.exit_code == 0, done.output
    expected = {"tensor_parallel_size": 4, "seed": 1, "--quantization": "fp8", "hf_overrides": {"a": [1]}, "x": ""}
    assert served[0].engine_config().engine_args == expected
    for wrong in ("tensor_parallel_size", "=4", "--=4", ""):
        refused = CliRunner().invoke(app, [*words, "--engine-arg", wrong])
        assert refused.exit_code == 2
        assert "NAME=VALUE" in refused.output
    assert len(served) == 1


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


@pytest.mark.vllm
@pytest.mark.parametrize(
    ("eager", "compiler", "told"),
    [(True, "g++-which-is-nowhere", "1"), (True, sys.executable, None), (False, "g++-which-is-nowhere", None)],
)
def test_an_eager_engine_compiles_nothing_where_nothing_can(
    eager: bool, compiler: str, told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm.v1.engine.async_llm import AsyncLLM

    from searchr1.demo.bundle import CHECKPOINT

    seen: list[str | None] = []
    monkeypatch.setattr(
        AsyncLLM, "from_engine_args", lambda *_: seen.append(os.environ.get("TORCHDYNAMO_DISABLE")), raising=True
    )
    monkeypatch.delenv("TORCHDYNAMO_DISABLE", raising=False)
    monkeypatch.setenv("CXX", compiler)
    start_llm(VllmInProcessConfig(str(CHECKPOINT), enforce_eager=eager, max_model_len=256))
    assert seen == [told]
    assert "TORCHDYNAMO_DISABLE" not in os.environ
