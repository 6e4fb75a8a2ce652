"""Services as ``searchr1 serve`` opens them: the settings name the engine's kind."""

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from searchr1.engines.base import SamplingParams
from searchr1.errors import ConfigurationError
from searchr1.gateway.services import open_services
from searchr1.scheduling.shares import Part
from searchr1.settings import Settings
from tests.engines.helpers import complete, text_of
from tests.engines.vllm.fake_vllm import serve_fake_vllm
from tests.gateway.conftest import eventually

RETRIEVER = "http://127.0.0.1:9/retrieve"


def settings(model_dir: Path, **given: Any) -> Settings:
    return Settings(tokenizer=str(model_dir), retriever=RETRIEVER, **{"model": "m", **given})


async def test_a_scripted_engine_is_served(model_dir: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.txt"
    script.write_text("<answer> Bamako </answer>\n", encoding="utf-8")
    async with open_services(settings(model_dir, engine="scripted", model=str(script))) as services:
        chunks = await complete(services.default.engine, SamplingParams(max_tokens=9))
        assert text_of(chunks) == "<answer> Bamako </answer>"
        assert services.engine_metrics is None, "it tells none"


async def test_transformers_serves_where_vllm_is_not(model_dir: Path) -> None:
    async with open_services(settings(model_dir, engine="transformers", model=str(model_dir))) as services:
        assert (await services.default.engine.health()).ok
        assert (await complete(services.default.engine, SamplingParams(max_tokens=3)))[-1].finish is not None


async def test_a_remote_engine_need_not_be_up_and_its_metrics_are_its_own(model_dir: Path) -> None:
    async with open_services(settings(model_dir, engine_url="http://127.0.0.1:9")) as services:
        assert not (await services.default.engine.health()).ok
        assert services.engine_metrics is None


async def test_the_file_of_models_opens_each_with_an_engine_of_its_own(model_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    table = '[[models]]\nname = "{}"\nengine_url = "{}"\ntokenizer = "{}"\n'
    async with (
        serve_fake_vllm(["<answer> small </answer>"], encode=lambda text: list(text.encode())) as small,
        serve_fake_vllm(["<answer> next </answer>"], encode=lambda text: list(text.encode())) as candidate,
    ):
        tables = [table.format("small", small.url, model_dir), table.format("next", candidate.url, model_dir)]
        file.write_text(tables[0] + tables[1] + 'candidate_of = "small"\nshare = 0.5\n', encoding="utf-8")
        given = settings(model_dir, engine_url="http://127.0.0.1:9", models_file=file)
        async with open_services(given) as services:
            assert [model.name for model in services.models] == ["m", "small", "next"]
            assert services.default.name == "m"
            assert services.models["next"].candidate_of == "small"
            said = [
                text_of(await complete(services.models[name].engine, SamplingParams(max_tokens=99)))
                for name in ("small", "next")
            ]
            assert said == ["<answer> small </answer>", "<answer> next </answer>"]
            assert [fake.bodies[0]["model"] for fake in (small, candidate)] == ["small", "next"]


async def test_models_behind_one_engine_share_its_cache(model_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    async with serve_fake_vllm((), encode=lambda text: list(text.encode())) as engine:
        engine.num_blocks = 1001
        table = f'[[models]]\nname = "adapter"\nengine_url = "{engine.url}"\ntokenizer = "{model_dir}"\n'
        file.write_text(table, encoding="utf-8")
        given = settings(model_dir, engine_url=engine.url, models_file=file)
        async with open_services(given) as services, AsyncExitStack() as stack:
            for model in services.models:
                await stack.enter_async_context(model.seats)

            def shares() -> list[Part]:
                return [part for model in services.models for part in model.seats._parts.values()]

            await eventually(lambda: len(shares()) == 2 and all(part.meant > 4096 for part in shares()))
            assert sum(part.held for part in shares()) <= 16 * 1000


async def test_an_unknown_engine_is_told(model_dir: Path) -> None:
    with pytest.raises(ConfigurationError, match="no engine 'vlm'"):
        async with open_services(settings(model_dir, engine="vlm")):
            pass
