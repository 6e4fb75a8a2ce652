"""The seam: an engine is found by its kind's name, and nothing heavy is imported to find it."""

import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from searchr1.demo.bundle import CHECKPOINT
from searchr1.engines.base import SamplingParams, TakesWeights, TellsMetrics
from searchr1.engines.factory import OPENERS, EngineConfig, open_engine, register, split_urls
from searchr1.errors import ConfigurationError, EngineUnavailableError
from searchr1.settings import Settings
from tests.engines.helpers import complete, text_of
from tests.engines.vllm.fake_vllm import MODEL, serve_fake_vllm

DOCS = (Path(__file__).parents[2] / "docs" / "reference" / "settings.md").read_text("utf-8")


def encode(text: str) -> list[int]:
    return list(text.encode())


@pytest.mark.parametrize("kind", OPENERS.all())
def test_a_kind_that_a_setting_can_name_is_in_the_docs(kind: str) -> None:
    [row] = [line for line in DOCS.splitlines() if line.startswith("| `SEARCHR1_ENGINE` |")]
    assert f"`{kind}`" in row


@pytest.mark.process
def test_finding_the_kinds_loads_neither_torch_nor_vllm() -> None:
    program = (
        "import sys; from searchr1.engines.factory import OPENERS; OPENERS.all(); "
        "print([name for name in ('torch', 'vllm', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_kind_has_one_opener() -> None:
    with pytest.raises(ValueError, match="two engines are called 'vllm'"):
        register("vllm")(asynccontextmanager(lambda _: pytest.fail("opened")))


async def test_an_unknown_kind_is_told_with_those_that_there_are() -> None:
    with pytest.raises(ConfigurationError, match=f"no engine 'vlm'; there are {', '.join(OPENERS.all())}$"):
        async with open_engine(EngineConfig("vlm", "m")):
            pass


@pytest.mark.parametrize(
    ("kind", "urls", "message"),
    [
        ("vllm-http", (), "needs the address of one server, not 0"),
        ("vllm-http", ("http://a", "http://b"), "needs the address of one server, not 2"),
        ("vllm-pool", (), "needs the addresses"),
        ("vllm", ("http://a",), "has no address"),
        ("transformers", ("http://a",), "has no address"),
        ("scripted", (), "can't be read"),
    ],
)
async def test_settings_that_do_not_fit_the_kind_are_told(kind: str, urls: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        async with open_engine(EngineConfig(kind, "nowhere", urls=urls)):
            pass


@pytest.mark.torch
async def test_an_unknown_dtype_is_told() -> None:
    with pytest.raises(ConfigurationError, match="no dtype 'load'"):
        async with open_engine(EngineConfig("transformers", str(CHECKPOINT), dtype="load")):
            pass


async def test_a_remote_vllm_is_opened_with_its_key_and_priority() -> None:
    async with serve_fake_vllm(["ab"], encode=encode) as fake:
        config = EngineConfig("vllm-http", MODEL, urls=(fake.url,), api_key="k", priority_scheduling=True)
        async with open_engine(config) as engine:
            assert text_of(await complete(engine, SamplingParams(max_tokens=4))) == "ab"
            assert (await engine.health()).ok
        assert fake.headers[0]["Authorization"] == "Bearer k"
        assert fake.bodies[0]["priority"] == 0
    assert isinstance(engine, TellsMetrics)
    assert not isinstance(engine, TakesWeights)


async def test_a_remote_vllm_need_not_be_up_but_replicas_are_asked() -> None:
    async with open_engine(EngineConfig("vllm-http", MODEL, urls=("http://127.0.0.1:9",))) as engine:
        assert not (await engine.health()).ok
    with pytest.raises(EngineUnavailableError, match=r"127\.0\.0\.1:9"):
        async with open_engine(EngineConfig("vllm-pool", "", urls=("http://127.0.0.1:9",))):
            pass


@pytest.mark.torch
async def test_transformers_serves_a_checkpoint_and_takes_weights() -> None:
    config = EngineConfig("transformers", str(CHECKPOINT), device="cpu", dtype="float32", kv_cache_gib=0.1)
    async with open_engine(config) as engine:
        chunks = await complete(engine, SamplingParams(max_tokens=4, temperature=0.0))
        assert chunks[-1].finish == "length"
        assert isinstance(engine, TakesWeights)
    assert not (await engine.health()).ok


async def test_a_script_is_replayed_over_and_over(tmp_path: Path) -> None:
    script = tmp_path / "script.txt"
    script.write_text("<search> Mali </search>\n<answer> Bamako </answer>\n", encoding="utf-8")
    async with open_engine(EngineConfig("scripted", str(script))) as engine:
        said = [text_of(await complete(engine, SamplingParams(max_tokens=9))) for _ in range(3)]
    assert said == ["<search> Mali </search>", "<answer> Bamako </answer>", "<search> Mali </search>"]
    script.write_text("")
    with pytest.raises(ConfigurationError, match="is empty"):
        async with open_engine(EngineConfig("scripted", str(script))):
            pass


@pytest.mark.parametrize(
    ("given", "kind", "urls"),
    [
        ({}, "vllm", ()),
        ({"engine_url": "http://a"}, "vllm-http", ("http://a",)),
        ({"engine": "transformers"}, "transformers", ()),
    ],
)
def test_the_servers_settings_name_the_kind(given: dict[str, Any], kind: str, urls: tuple[str, ...]) -> None:
    settings = Settings(
        model="m", retriever="none", max_context_tokens=300, max_prompt_tokens=200, max_completion_tokens=20, **given
    )
    config = settings.engine_config()
    assert (config.kind, config.urls, config.model, config.max_model_len) == (kind, urls, "m", 320)


@pytest.mark.parametrize(
    ("written", "urls"),
    [
        ("http://a:1", ("http://a:1",)),
        (" http://a:1/v1 , b:2,https://c/x/ ,", ("http://a:1/v1", "b:2", "https://c/x/")),
        ("http://a,http://a,http://b", ("http://a", "http://b")),
        ("http://user:pass,word@a:1,http://b", ("http://user:pass,word@a:1", "http://b")),
        ("k8s://default/vllm:8000", ("k8s://default/vllm:8000",)),
        ("http://[::1]:1,http://[::2]:1", ("http://[::1]:1", "http://[::2]:1")),
        ("", ("",)),
    ],
)
def test_addresses_are_separated_by_commas(written: str, urls: tuple[str, ...]) -> None:
    assert split_urls(written) == urls


def test_an_engine_reads_the_checkpoint_that_a_link_led_to_when_it_was_opened(tmp_path: Path) -> None:
    for step in ("checkpoint-000100", "checkpoint-000200"):
        (tmp_path / step).mkdir()
    link = tmp_path / "checkpoint"
    link.symlink_to("checkpoint-000100")
    opened = EngineConfig("vllm", str(link)).place()
    link.unlink()
    link.symlink_to("checkpoint-000200")
    assert opened == str((tmp_path / "checkpoint-000100").resolve())
    assert EngineConfig("vllm", "Qwen/Qwen2.5-7B").place() == "Qwen/Qwen2.5-7B"
