"""The table of settings that can't hold together, or have no effect beside others: each row by an example."""

from typing import Any

import pytest
from pydantic import ValidationError

from searchr1.environment import variable_of
from searchr1.settings import Settings
from searchr1.settings_faults import explained
from searchr1.settings_together import CLASHES, IDLE, idle

REDIS = "redis://h"
ENGINE = "http://h:8000"


def settings(**given: Any) -> Settings:
    return Settings.model_validate({"model": "m", "retriever": "tavily:", **given})


CLASHING: list[dict[str, Any]] = [
    {"top_k": 11},
    {"deadline_s": 700},
    {"max_prompt_tokens": 5000},
    {"tenant_keys": {}},
    {"tenant_keys": {"acme": ["k1"]}, "tenant_weights": {"other": 2}},
    {"ops_host": "127.0.0.1"},
    {"ops_port": 8000},
    {"rewrite_url": "ftp://h", "rewrite_model": "m"},
    {"rewrite_url": ENGINE},
    {"engine": "vllm-http"},
    {"engine": "transformers", "engine_url": ENGINE},
    {"engine": "vllm-http", "engine_url": f"{ENGINE},http://h:8001"},
    {"workers": 2, "redis_url": REDIS},
    {"workers": 2, "engine_url": ENGINE},
    {"workers": 3, "engine_url": ENGINE, "redis_url": REDIS, "max_concurrent_runs": 2},
    {"max_choices": 5, "max_concurrent_runs": 3, "max_queued_runs": 1},
    {"max_question_chars": 5000, "max_body_bytes": 4000},
]
"""One for each of ``CLASHES``, in its order."""


@pytest.mark.parametrize(("number", "given"), list(enumerate(CLASHING)))
def test_settings_that_clash_stop_the_start_with_their_names(number: int, given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        settings(**given)
    told = explained(refused.value)
    for name in CLASHES[number].names:
        assert variable_of(name) in told
    assert told.count("{") == 0


def test_every_clash_has_an_example() -> None:
    assert len(CLASHING) == len(CLASHES)


CACHE_OFF = {"cache": False}
REWRITE = {"conversation": "rewrite"}
WITHOUT_EFFECT: list[tuple[str, dict[str, Any]]] = [
    ("engine_api_key", {"engine_api_key": "k"}),
    ("dtype", {"dtype": "float32", "engine_url": ENGINE}),
    ("max_num_seqs", {"max_num_seqs": 8, "engine_url": ENGINE}),
    ("kv_cache_gib", {"kv_cache_gib": 1, "engine_url": ENGINE}),
    ("enforce_eager", {"enforce_eager": True, "engine_url": ENGINE}),
    ("enforce_eager", {"enforce_eager": True, "engine": "transformers"}),
    ("engine_priority", {"engine_priority": True, "engine": "scripted"}),
    ("engine_silence_s", {"engine_silence_s": 600}),
    ("open", {"open": True, "api_keys": "k1"}),
    ("share_cache", {"share_cache": True}),
    ("share_cache", {"share_cache": True, "api_keys": "k1", **CACHE_OFF}),
    ("cache_soft_ttl_s", {"cache_soft_ttl_s": 5, **CACHE_OFF}),
    ("cache_hard_ttl_s", {"cache_hard_ttl_s": 1e6, **CACHE_OFF}),
    ("cache_empty_ttl_s", {"cache_empty_ttl_s": 5, **CACHE_OFF}),
    ("cache_ttls_s", {"cache_ttls_s": {"tavily": [1, 2]}, **CACHE_OFF}),
    ("cache_max_entry_bytes", {"cache_max_entry_bytes": 9999, **CACHE_OFF}),
    ("cache_memory_mib", {"cache_memory_mib": 5, **CACHE_OFF}),
    ("cache_memory_mib", {"cache_memory_mib": 5, "redis_url": REDIS}),
    ("cache_ttls_s", {"cache_ttls_s": {"exa": [1, 2]}}),
    ("run_memory_mib", {"run_memory_mib": 5, "redis_url": REDIS}),
    ("run_memory_mib", {"run_memory_mib": 5, "store_runs": False}),
    ("rewriter", {"rewriter": "rules"}),
    ("rewrite_url", {"rewrite_url": ENGINE, "rewrite_model": "m", "engine_url": ENGINE}),
    ("rewrite_model", {"rewrite_model": "m"}),
    ("rewrite_api_key", {"rewrite_api_key": "k"}),
    ("rewrite_timeout_s", {"rewrite_timeout_s": 5}),
    ("rewrite_url", {"rewrite_url": ENGINE, "rewrite_model": "m", "rewriter": "rules", **REWRITE}),
    ("rewrite_model", {"rewrite_model": "m", **REWRITE}),
    ("rewrite_api_key", {"rewrite_api_key": "k", **REWRITE}),
    ("rewrite_timeout_s", {"rewrite_timeout_s": 600, **REWRITE}),
    ("search_budget_per_tenant", {"search_budget_per_tenant": 5}),
    ("search_budget_usd_per_tenant", {"search_budget_usd_per_tenant": 5, "search_costs_usd": {"tavily": 1}}),
    ("search_budget_usd_per_key", {"search_budget_usd_per_key": 5}),
    ("search_budget_usd_per_tenant", {"search_budget_usd_per_tenant": 5, "tenant_keys": {"acme": ["k1"]}}),
    ("search_budget_window_s", {"search_budget_window_s": 5}),
    ("search_costs_usd", {"search_costs_usd": {"exa:deep": 1}}),
    ("search_timeout_s", {"search_timeout_s": 600}),
    ("max_completion_tokens", {"max_completion_tokens": 3000}),
    ("run_ttl_s", {"run_ttl_s": 5}),
    ("access_log", {"access_log": True, "log_level": "warning"}),
    ("retriever_api_keys", {"retriever_api_keys": "k1"}),
]
"""One for each of ``IDLE``, in its order."""


@pytest.mark.parametrize(("number", "name", "given"), [(i, *row) for i, row in enumerate(WITHOUT_EFFECT)])
def test_a_setting_without_effect_is_named(number: int, name: str, given: dict[str, Any]) -> None:
    rule, found = IDLE[number], settings(**given)
    assert rule.name == name
    told = list(idle(found))
    assert f"{variable_of(name)} has no effect: {rule.why}" in told
    assert not any(variable_of(name) in line for line in idle(found, but={name}) if line.startswith(variable_of(name)))


def test_every_idle_setting_has_an_example() -> None:
    assert len(WITHOUT_EFFECT) == len(IDLE)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"engine_url": ENGINE, "engine_api_key": "k", "redis_url": REDIS, "workers": 2, "engine_priority": True},
        {"dtype": "float32", "kv_cache_gib": 1, "enforce_eager": True, "cache_memory_mib": 5, "run_memory_mib": 5},
        {**REWRITE, "rewrite_url": ENGINE, "rewrite_model": "m", "rewrite_api_key": "k", "rewrite_timeout_s": 5},
        {"search_costs_usd": {"tavily:advanced": 1}, "search_budget_usd_per_key": 5, "search_budget_window_s": 9},
        {"open": True, "access_log": True, "cache_ttls_s": {"tavily": [1, 2]}},
        {"api_keys": "k1", "share_cache": True, "tenant_keys": {"acme": ["k2"]}, "search_budget_per_tenant": 1},
    ],
)
def test_settings_with_an_effect_are_not_named(given: dict[str, Any]) -> None:
    assert list(idle(settings(**given))) == []
