"""The transformers engine against plain transformers on a small model in float32."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, MistralConfig, MistralForCausalLM

from searchr1.engines.base import Chunk, SamplingParams, ServedEngine, TakesWeights
from searchr1.engines.transformers.engine import TransformersEngine
from searchr1.errors import ConfigurationError, EngineError, EngineUnavailableError
from searchr1.loop.types import TokenIds
from searchr1.tokenizer import Tokenizer
from tests.support.tiny_model import MAX_MODEL_LEN, write_tiny_model

GREEDY = SamplingParams(max_tokens=20, temperature=0.0, logprobs=True)
PROMPTS: tuple[TokenIds, ...] = tuple(tuple(range(30, 30 + length)) for length in (3, 40, 17, 1, 8, 8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def other(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the same architecture with other weights, in several files."""
    made = tmp_path_factory.mktemp("other") / "model"
    shutil.copytree(folder, made, ignore=shutil.ignore_patterns("*.safetensors"))
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    random = torch.Generator().manual_seed(5)
    # The output layer stays, which keeps the model from ending a completion by itself.
    for layer in model.model.layers:
        for part in (layer.self_attn.k_proj, layer.self_attn.v_proj):
            with torch.no_grad():
                part.weight += 0.3 * part.weight.std() * torch.randn(part.weight.shape, generator=random)
    model.save_pretrained(made, max_shard_size="100KB")
    assert len(list(made.glob("*.safetensors"))) > 1
    return made


@pytest_asyncio.fixture
async def engine(folder: Path) -> AsyncIterator[TransformersEngine]:
    loaded = TransformersEngine.load(folder, max_batch=4)
    yield loaded
    await loaded.aclose()


async def complete(
    engine: TransformersEngine, prompt: TokenIds = PROMPTS[0], params: SamplingParams = GREEDY
) -> list[Chunk]:
    async with aclosing(engine.generate(prompt, params, session="s")) as chunks:
        return [chunk async for chunk in chunks]


def ids_of(chunks: list[Chunk]) -> TokenIds:
    return tuple(token for chunk in chunks for token in chunk.token_ids)


def text_of(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def logprobs_of(chunks: list[Chunk]) -> torch.Tensor:
    return torch.tensor([logprob for chunk in chunks for logprob in chunk.logprobs or ()])


@torch.inference_mode()
def reference(folder: Path, prompt: TokenIds, num_tokens: int) -> tuple[TokenIds, torch.Tensor]:
    """Greedy ids and their logprobs, each from a pass over everything before it."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    ids, logprobs = list(prompt), []
    for _ in range(num_tokens):
        row = model(torch.tensor([ids]), use_cache=False).logits[0, -1].log_softmax(-1)
        ids.append(int(row.argmax()))
        logprobs.append(float(row.max()))
    return tuple(ids[len(prompt) :]), torch.tensor(logprobs)


async def test_greedy_completions_in_a_batch_are_those_of_plain_transformers_alone(
    engine: TransformersEngine, folder: Path
) -> None:
    assert isinstance(engine, TakesWeights)
    served: ServedEngine = engine
    assert (await served.health()).ok
    # More than run at once, so that some join when others leave.
    together = await asyncio.gather(*(complete(engine, prompt) for prompt in PROMPTS))
    for prompt, chunks in zip(PROMPTS, together, strict=True):
        ids, logprobs = reference(folder, prompt, 20)
        assert ids_of(chunks) == ids
        torch.testing.assert_close(logprobs_of(chunks), logprobs, rtol=1e-4, atol=1e-4)
        assert text_of(chunks) == Tokenizer.load(str(folder)).decode(ids)
        assert [chunk.finish for chunk in chunks] == [None] * 19 + ["length"]


async def test_a_seeded_sample_does_not_depend_on_its_neighbours(engine: TransformersEngine) -> None:
    def params(seed: int | None, temperature: float = 1.0, top_p: float = 1.0) -> SamplingParams:
        return SamplingParams(max_tokens=16, temperature=temperature, top_p=top_p, seed=seed)

    mine = [(PROMPTS[0], params(7)), (PROMPTS[1], params(7)), (PROMPTS[2], params(9, 0.8, 0.9))]
    neighbours = [(PROMPTS[3], params(None, *each)) for each in ((0.0, 1.0), (0.7, 0.5), (2.0, 0.9))]
    alone = [ids_of(await complete(engine, *each)) for each in mine]
    together = await asyncio.gather(*(complete(engine, *each) for each in (*mine, *neighbours)))
    assert [ids_of(chunks) for chunks in together[:3]] == alone
    assert ids_of(await complete(engine, PROMPTS[0], params(8))) != alone[0]


async def test_logprobs_are_those_of_temperature_one(engine: TransformersEngine, folder: Path) -> None:
    chunks = await complete(
        engine, params=SamplingParams(max_tokens=12, temperature=3.0, top_p=0.8, seed=1, logprobs=True)
    )
    ids = ids_of(chunks)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    with torch.inference_mode():
        rows = model(torch.tensor([[*PROMPTS[0], *ids]])).logits[0, len(PROMPTS[0]) - 1 : -1].log_softmax(-1)
    torch.testing.assert_close(logprobs_of(chunks), rows[range(12), list(ids)], rtol=1e-4, atol=1e-4)


async def test_ends_at_a_stop_string(engine: TransformersEngine) -> None:
    text = text_of(await complete(engine))
    stop = text[5:8]
    chunks = await complete(engine, params=SamplingParams(max_tokens=20, temperature=0.0, stop=("no such", stop)))
    assert text_of(chunks) == text[: text.index(stop) + len(stop)]
    assert chunks[-1].finish == "stop"


async def test_ends_at_the_models_longest_context(engine: TransformersEngine) -> None:
    long = tuple(range(40, 60)) * (MAX_MODEL_LEN // 20)
    prompt = (*long, *long)[: MAX_MODEL_LEN // 8 * 8 - 3]
    engine._max_len = 40  # The model's own 32,768 would take minutes.
    chunks = await complete(engine, prompt[:37])
    assert (len(ids_of(chunks)), chunks[-1].finish) == (3, "length")
    with pytest.raises(EngineError, match="refused"):
        await complete(engine, prompt[:40])


@pytest.mark.parametrize("prompt", [(), (5, 10**6), (-1,)])
async def test_refuses_what_is_no_prompt(engine: TransformersEngine, prompt: TokenIds) -> None:
    with pytest.raises(EngineError, match="refused"):
        await complete(engine, prompt)
    assert await complete(engine)


async def test_a_closed_completion_frees_its_row(engine: TransformersEngine) -> None:
    endless = SamplingParams(max_tokens=30_000, temperature=0.0)
    abandoned = [engine.generate(PROMPTS[1], endless, session="s") for _ in range(4)]
    for generator in abandoned:
        assert (await anext(generator)).finish is None
    for generator in abandoned:
        await generator.aclose()
    # All four rows were taken: this would otherwise wait for 30,000 tokens.
    assert len(ids_of(await complete(engine))) == 20
    assert engine._batch.num_rows == 0


async def test_lower_priorities_run_first(engine: TransformersEngine) -> None:
    order: list[int] = []

    async def one(priority: int) -> None:
        async with aclosing(
            engine.generate(PROMPTS[0], SamplingParams(max_tokens=2), session="s", priority=priority)
        ) as chunks:
            assert [chunk.finish async for chunk in chunks] == [None, "length"]
        order.append(priority)

    engine._max_batch = 1
    await asyncio.gather(*(one(priority) for priority in (3, 1, 2, 0)))
    assert order == [0, 1, 2, 3]


async def test_admission_stays_within_the_memory_of_the_caches(folder: Path) -> None:
    # 1 MiB, at 1 KiB a token: four rows of up to 220 tokens fit, and not a fifth.
    engine = TransformersEngine.load(folder, max_batch=64, kv_cache_gib=1 / 1024)
    assert engine._batch.bytes_per_token() == 1024
    most = 0

    async def one() -> None:
        nonlocal most
        async for _ in engine.generate((1,) * 20, SamplingParams(max_tokens=200), session="s"):
            most = max(most, engine._batch.num_rows)

    await asyncio.gather(*(one() for _ in range(7)))
    # One that is longer than all the memory runs alone.
    await complete(engine, (1,) * 20, SamplingParams(max_tokens=5, temperature=0.0))
    assert most == 4
    await engine.aclose()


async def test_taken_weights_speak_as_those_of_a_fresh_engine(
    engine: TransformersEngine, folder: Path, other: Path
) -> None:
    first = ids_of(await complete(engine))
    assert first == reference(folder, PROMPTS[0], 20)[0]
    await engine.take_weights(other, version="2")
    assert engine.version == "2"
    chunks = await complete(engine)
    ids, logprobs = reference(other, PROMPTS[0], 20)
    assert ids_of(chunks) == ids != first
    torch.testing.assert_close(logprobs_of(chunks), logprobs, rtol=1e-4, atol=1e-4)


async def test_a_running_completion_goes_on_as_if_the_new_weights_had_read_it_all(
    engine: TransformersEngine, folder: Path, other: Path
) -> None:
    params = SamplingParams(max_tokens=150, temperature=0.0)
    async with aclosing(engine.generate(PROMPTS[1], params, session="s")) as running:
        chunks = [await anext(running) for _ in range(5)]
        await engine.take_weights(other, version="2")
        chunks += [chunk async for chunk in running]
    ids = ids_of(chunks)
    assert len(ids) == 150
    old, _ = reference(folder, PROMPTS[1], 150)
    # How far the old weights came before the new ones is a matter of time; never over all of it.
    changed = next(at for at in range(150) if ids[at] != old[at])
    assert changed >= 5
    new, _ = reference(other, (*PROMPTS[1], *ids[:changed]), 30)
    assert ids[changed : changed + 30] == new[: 150 - changed]


async def test_a_folder_that_does_not_fit_changes_nothing(
    engine: TransformersEngine, folder: Path, tmp_path: Path
) -> None:
    before = ids_of(await complete(engine))
    with pytest.raises(EngineError, match="there is no"):
        await engine.take_weights(tmp_path, version="2")
    weights = load_file(folder / "model.safetensors")
    last = sorted(weights)[-1]
    for broken in (
        {name: tensor * 2 for name, tensor in weights.items() if name != last},
        {name: tensor * 2 for name, tensor in weights.items()} | {"extra": torch.zeros(1)},
        {name: tensor * 2 for name, tensor in weights.items()} | {last: torch.zeros(1)},
    ):
        save_file(broken, tmp_path / "model.safetensors")
        with pytest.raises(EngineError, match="can't take"):
            await engine.take_weights(tmp_path, version="2")
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(EngineError, match="can't take"):
        await engine.take_weights(tmp_path, version="2")
    assert ids_of(await complete(engine)) == before
    assert engine.version is None


async def test_a_failing_model_fails_its_completions_and_serves_on(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> torch.Tensor:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(engine._batch, "step", broken)
        failed = await asyncio.gather(*(complete(engine, prompt) for prompt in PROMPTS), return_exceptions=True)
    assert all(isinstance(error, EngineError) and "out of memory" in str(error) for error in failed)
    assert len(ids_of(await complete(engine))) == 20


async def test_closing_ends_what_runs(folder: Path) -> None:
    engine = TransformersEngine.load(folder)
    async with aclosing(engine.generate(PROMPTS[0], SamplingParams(max_tokens=30_000), session="s")) as running:
        await anext(running)
        await engine.aclose()
        with pytest.raises(EngineUnavailableError):
            _ = [chunk async for chunk in running]
    with pytest.raises(EngineUnavailableError):
        await complete(engine)
    with pytest.raises(EngineUnavailableError):
        await engine.take_weights(folder, version="2")
    assert not (await engine.health()).ok


def test_serves_one_event_loop_after_another(folder: Path) -> None:
    engine = TransformersEngine.load(folder)
    first, second = (ids_of(asyncio.run(complete(engine))) for _ in range(2))
    asyncio.run(engine.aclose())
    assert first == second


def test_refuses_layers_that_see_a_window(folder: Path) -> None:
    config = MistralConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        sliding_window=16,
    )
    untyped: Any = MistralForCausalLM
    model = untyped(config)
    with pytest.raises(ConfigurationError, match="full attention"):
        TransformersEngine(model, Tokenizer.load(str(folder)), end_ids=frozenset())


def test_refuses_a_folder_without_a_model(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "tokenizer.json", tmp_path)
    with pytest.raises(ConfigurationError, match="there is no model"):
        TransformersEngine.load(tmp_path)
