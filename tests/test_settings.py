"""Settings from the environment and from files, and the search configuration that they make."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from searchr1.errors import ConfigurationError
from searchr1.retrieval.config import BudgetConfig, CacheConfig, ResilienceConfig, SearchConfig
from searchr1.retrieval.registry import key_variable, providers
from searchr1.settings import Settings

KEYED = [one.name for one in providers().values() if one.key != "none"]


def load(**given: Any) -> Settings:
    return Settings.load(**{"model": "m", "retriever": "index:none", **given})


def test_the_defaults_of_the_search_layer_are_those_of_its_configs() -> None:
    assert load().search() == SearchConfig("index:none")


def test_a_checkpoint_is_served_by_the_name_that_it_was_given(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-000100").mkdir()
    (tmp_path / "checkpoint").symlink_to("checkpoint-000100")
    assert load(model=str(tmp_path / "checkpoint")).public_name == "checkpoint"
    assert load(model=f"{tmp_path / 'checkpoint-000100'}/").public_name == "checkpoint-000100"
    assert load(model="owner/name").public_name == "owner/name"


ENVIRONMENT = {
    "SEARCHR1_KEYS_IN_REDIS": "1",
    "SEARCHR1_SEARCH_TIMEOUT_S": "7",
    "SEARCHR1_PASSAGE_CHARS": "500",
    "SEARCHR1_REDIS_URL": "redis://h",
    "SEARCHR1_CACHE": "false",
    "SEARCHR1_CACHE_SOFT_TTL_S": "1",
    "SEARCHR1_CACHE_HARD_TTL_S": "2",
    "SEARCHR1_CACHE_EMPTY_TTL_S": "3",
    "SEARCHR1_CACHE_TTLS_S": '{"exa": [1, 2]}',
    "SEARCHR1_CACHE_MAX_ENTRY_BYTES": "2048",
    "SEARCHR1_CACHE_MEMORY_MIB": "5",
    "SEARCHR1_SEARCH_ATTEMPTS": "2",
    "SEARCHR1_SEARCH_BREAKER_FAILURES": "3",
    "SEARCHR1_SEARCH_BREAKER_RESET_S": "4",
    "SEARCHR1_SEARCH_MAX_CONCURRENT": "5",
    "SEARCHR1_SEARCH_RATE_PER_S": "6",
    "SEARCHR1_SEARCH_HEDGE": "true",
    "SEARCHR1_SEARCH_COSTS_USD": '{"exa": 0.01}',
    "SEARCHR1_SEARCH_BUDGET_WINDOW_S": "60",
    "SEARCHR1_SEARCH_BUDGET_PER_KEY": "1",
    "SEARCHR1_SEARCH_BUDGET_PER_TENANT": "2",
    "SEARCHR1_SEARCH_BUDGET_USD_PER_KEY": "3",
    "SEARCHR1_SEARCH_BUDGET_USD_PER_TENANT": "4",
}


def test_every_part_of_the_search_layer_is_set_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    found = load().search()
    assert found == SearchConfig(
        "index:none",
        timeout_s=7,
        passage_chars=500,
        redis_url="redis://h",
        cache=CacheConfig(False, 1, 2, 3, {"exa": (1, 2)}, 2048, 5),
        resilience=ResilienceConfig(2, 3, 4, 5, 6, True),
        budget=BudgetConfig({"exa": 0.01}, 60, 1, 2, 3, 4, True),
    )
    for config in (found.cache, found.resilience, found.budget):
        same = [one.name for one in fields(config) if getattr(config, one.name) == getattr(type(config)(), one.name)]
        assert same == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("search_attempts", 11),
        ("search_rate_per_s", 0),
        ("cache_max_entry_bytes", 1023),
        ("search_budget_per_key", -1),
        ("passage_chars", 49),
    ],
)
def test_bounds_are_those_of_the_configs(name: str, value: int) -> None:
    with pytest.raises(ValidationError) as refused:
        load(**{name: value})
    assert refused.value.errors()[0]["loc"] == (name,)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cache_ttls_s": {"exa": (5, 2)}}, r"cache_ttls_s\['exa'\]: the soft TTL"),
        ({"cache_soft_ttl_s": 9, "cache_hard_ttl_s": 9}, "cache_soft_ttl_s and cache_hard_ttl_s: the soft TTL"),
        ({"search_costs_usd": {"exa": -1}}, r"search_costs_usd\['exa'\]: a price"),
    ],
)
def test_what_cannot_work_together_is_refused_and_quotes_no_key(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as refused:
        load(provider_keys={"exa": "s3cret"}, **given)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("name", KEYED)
def test_the_key_of_any_provider_comes_from_its_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"SEARCHR1_{name.upper()}_API_KEY", "s3cret")
    assert key_variable(name) == f"SEARCHR1_{name.upper()}_API_KEY"
    settings = load()
    assert settings.search().secrets == {name: "s3cret"}
    assert "s3cret" not in repr(settings) + repr(settings.search())


@pytest.mark.parametrize("name", KEYED)
def test_the_key_of_any_provider_comes_from_its_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"searchr1_{name}_api_key").write_text("s3cret\n")
    monkeypatch.setenv("SEARCHR1_SECRETS_DIR", str(tmp_path))
    assert load().search().secrets == {name: "s3cret"}


def test_a_key_that_is_given_goes_before_the_environment_and_that_before_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("exa", "brave", "tavily"):
        (tmp_path / f"searchr1_{name}_api_key").write_text("file")
    monkeypatch.setenv("SEARCHR1_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("SEARCHR1_EXA_API_KEY", "environment")
    monkeypatch.setenv("SEARCHR1_BRAVE_API_KEY", "environment")
    found = load(provider_keys={"exa": "given"}).search().secrets
    assert found == {"exa": "given", "brave": "environment", "tavily": "file"}


@pytest.mark.parametrize("name", ["cache_ttls_s", "provider_keys", "search_costs_usd", "tenant_keys"])
@pytest.mark.parametrize("from_file", [False, True])
def test_text_that_is_not_json_is_refused_by_the_settings_name_and_not_quoted(
    name: str, from_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if from_file:
        (tmp_path / f"searchr1_{name}").write_text('{"exa": "s3cret"', "utf-8")
        monkeypatch.setenv("SEARCHR1_SECRETS_DIR", str(tmp_path))
    else:
        monkeypatch.setenv(f"SEARCHR1_{name.upper()}", '{"exa": "s3cret"')
    with pytest.raises(ConfigurationError, match=f"SEARCHR1_{name.upper()}: it must be JSON") as refused:
        load()
    assert "s3cret" not in str(refused.value)


def test_a_key_comes_from_the_first_place_that_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("exa", "brave", "serper", "tavily"):
        (tmp_path / f"searchr1_{name}_api_key").write_text("file", "utf-8")
    for name in ("exa", "brave", "serper"):
        monkeypatch.setenv(f"SEARCHR1_{name.upper()}_API_KEY", "variable")
    monkeypatch.setenv("SEARCHR1_PROVIDER_KEYS", '{"exa": "all", "brave": "all"}')
    monkeypatch.setenv("SEARCHR1_SECRETS_DIR", str(tmp_path))
    assert load(provider_keys={"exa": "given"}).search().secrets == {
        "exa": "given",
        "brave": "all",
        "serper": "variable",
        "tavily": "file",
    }


@pytest.mark.parametrize("weights", [{"acme": 0}, {"acme": -1}, {"acme": 1000}, {"acme": float("nan")}, {"other": 2}])
def test_a_weight_that_cannot_be_meant_is_refused(weights: dict[str, float]) -> None:
    keys = {"acme": ("0123456789abcdef",)}
    assert load(tenant_keys=keys, tenant_weights={"acme": 3}).tenant_weights == {"acme": 3}
    with pytest.raises(ValidationError, match=r"(?i)tenant_weights"):
        load(tenant_keys=keys, tenant_weights=weights)
