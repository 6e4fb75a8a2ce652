"""The file of more models: what it may hold, whose values hold where it says nothing, and how faults are told."""

from pathlib import Path
from typing import Any

import pytest

from searchr1.errors import ConfigurationError
from searchr1.models_file import MAX_MODELS, ModelConfig, ModelTable, model_configs
from searchr1.settings import Settings

WHOLE = """
[[models]]
name = "small"
engine_url = "http://10.0.0.6:8000, http://10.0.0.7:8000"
model = "org/small-3b"
engine_api_key = "key-of-small"
tokenizer = "folder"
profile = "search-o1"
max_turns = 2
max_context_tokens = 2048

[[models]]
name = "small-next"
engine_url = "http://10.0.0.8:8000"
candidate_of = "small"
share = 0.05
"""
CANDIDATE = WHOLE[WHOLE.rindex("[[models]]") :]
SMALL = '[[models]]\nname = "small"\nengine_url = "http://a:1"\n'


def read(folder: Path, text: str, **given: Any) -> tuple[ModelConfig, ...]:
    path = folder / "models.toml"
    path.write_text(text, encoding="utf-8")
    base = {"model": "default", "engine_url": "http://10.0.0.5:8000", "retriever": "index:none", **given}
    return model_configs(Settings.model_validate({**base, "models_file": path}))


def test_without_a_file_there_is_one_model() -> None:
    settings = Settings(model="default", retriever="index:none")
    assert model_configs(settings) == (ModelConfig(settings),)


def test_each_model_has_its_own_keys_and_the_settings_for_the_rest(tmp_path: Path) -> None:
    given = {"engine_api_key": "key-of-default", "max_turns": 3, "temperature": 0.5, "tokenizer": "t", "top_k": 5}
    default, small, candidate = read(tmp_path, WHOLE, **given, engine_args={"a": 1}, api_keys="a-key,b-key")
    assert [one.settings.public_name for one in (default, small, candidate)] == ["default", "small", "small-next"]
    assert (candidate.candidate_of, candidate.share, small.candidate_of) == ("small", 0.05, None)
    engine = small.settings.engine_config()
    assert (engine.kind, engine.model, engine.api_key) == ("vllm-pool", "org/small-3b", "key-of-small")
    assert engine.urls == ("http://10.0.0.6:8000", "http://10.0.0.7:8000")
    assert (small.settings.tokenizer, small.settings.profile) == ("folder", "search-o1")
    assert [one.settings.max_turns for one in (default, small, candidate)] == [3, 2, 3]
    assert [one.settings.max_context_tokens for one in (default, small, candidate)] == [4096, 2048, 4096]
    assert {one.settings.temperature for one in (default, small, candidate)} == {0.5}
    assert {one.settings.top_k for one in (default, small, candidate)} == {5}
    assert small.settings.api_keys == default.settings.api_keys


def test_nothing_of_the_defaults_engine_is_taken_over(tmp_path: Path) -> None:
    given = {"engine_api_key": "secret-of-default", "tokenizer": "t", "engine": "vllm-http", "engine_args": {"a": 1}}
    _, _, candidate = read(tmp_path, WHOLE, **given)
    engine = candidate.settings.engine_config()
    assert (engine.api_key, dict(engine.engine_args), candidate.settings.tokenizer) == (None, {}, None)
    assert candidate.settings.engine is None


def test_the_engine_arguments_of_the_environment_are_the_defaults_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEARCHR1_ENGINE_ARGS", '{"block_size": 32}')
    default, small, _ = read(tmp_path, WHOLE)
    assert dict(default.settings.engine_args) == {"block_size": 32}
    assert dict(small.settings.engine_args) == {}


def test_a_worker_has_its_part_of_a_models_queue(tmp_path: Path) -> None:
    _, small = read(tmp_path, SMALL + "max_queued_runs = 100", redis_url="redis://r", workers=4)
    assert small.settings.max_queued_runs == 25


def test_every_key_of_a_table_is_a_setting() -> None:
    assert set(ModelTable.model_fields) - {"name", "candidate_of", "share"} <= set(Settings.model_fields)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("models", "is no TOML"),
        ("", r"has no \[\[models\]\] table"),
        ("models = 3", r"has no \[\[models\]\] table"),
        ("models = [1]", r"has no \[\[models\]\] table"),
        (SMALL + "[other]\na = 1", "'other' is not read"),
        (SMALL + "max_turn = 3", "model 'small': 'max_turn' is no key of a model; did you mean 'max_turns'"),
        (SMALL + "retriever = 'x'", "model 'small': 'retriever' is no key of a model; there are name, "),
        ('[[models]]\nname = "small"', "model 'small': engine_url: Field required"),
        ('[[models]]\nengine_url = "http://a:1"', r"\[\[models\]\] table 1: name: Field required"),
        ('[[models]]\nname = "a b"\nengine_url = "http://a:1"', "name: String should match"),
        (SMALL + "max_turns = 0", "model 'small': max_turns: Input should be greater"),
        (SMALL + "max_turns = '3'", "model 'small': max_turns: Input should be a valid integer"),
        (SMALL + "max_context_tokens = 1024", "model 'small': .*MAX_PROMPT_TOKENS is above"),
        (SMALL + "profile = 'none'", "model 'small': profile: .*none"),
        (SMALL + SMALL, "2 models are called 'small'; name"),
        (SMALL.replace("small", "default"), "2 models are called 'default' .one is that of the settings."),
        (SMALL + "candidate_of = 'big'", "candidate_of: there is no 'big' that can have a candidate, but default"),
        (SMALL + "candidate_of = 'small'", "candidate_of: there is no 'small'"),
        (
            SMALL + "candidate_of = 'default'\nmax_turns = 3",
            "model 'small': max_turns: 3 is less than 4, which 'default'",
        ),
        (SMALL + "max_turns = 5\n" + CANDIDATE, "model 'small-next': max_turns: 4 is less than 5, which 'small'"),
        (SMALL + "share = 0.1", "share: it is a candidate's"),
        (SMALL + "candidate_of = 'default'\nshare = 1.1", "share: Input should be less"),
        (SMALL + "candidate_of = 'default'\nshare = nan", "share: Input should be"),
        (SMALL + "engine_api_key = 3", "engine_api_key: Input should be a valid string"),
        (SMALL.replace("http:", "ftp:"), "model 'small': engine_url: the engine's address is no HTTP address"),
        (SMALL.replace("http://a:1", "dns+http://a:1,http://b:1"), "model 'small': engine_url: .*must be the only one"),
        (
            WHOLE.replace("0.05", "0.6") + CANDIDATE.replace("small-next", "x").replace("0.05", "0.6"),
            "the candidates of 'small' have 1.2 together, more than 1",
        ),
        ("".join(SMALL.replace("small", f"m{n}") for n in range(MAX_MODELS + 1)), f"at most {MAX_MODELS}"),
    ],
)
def test_a_fault_is_told_with_file_table_and_key(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as caught:
        read(tmp_path, text)
    assert str(tmp_path / "models.toml") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_shares_that_come_to_one_are_taken(tmp_path: Path) -> None:
    one = SMALL + "candidate_of = 'default'\nshare = 0.1\n"
    assert len(read(tmp_path, "".join(one.replace("small", f"m{n}") for n in range(10)))) == 11


def test_no_key_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(tmp_path, SMALL + 'engine_api_key = "a secret\\n"\nmax_turns = 0')
    assert "secret" not in str(caught.value)


def test_a_file_that_is_not_there_is_told() -> None:
    settings = Settings.model_validate({"model": "m", "retriever": "index:none", "models_file": "/nowhere/m.toml"})
    with pytest.raises(ConfigurationError, match=r"SEARCHR1_MODELS_FILE: /nowhere/m\.toml can't be read"):
        model_configs(settings)
