"""Settings that can't hold together, and settings that have no effect beside others: one table of both.

A ``Clash`` stops the start, an ``Idle`` setting is named in a warning. The rules see the settings as they are, so they
hold whether a value comes from a variable, a file or an option. No message quotes a value of a key.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final

from searchr1.engines.factory import SEVERAL, split_urls
from searchr1.environment import variable_of
from searchr1.errors import ConfigurationError
from searchr1.retrieval.registry import parse_spec

Applies = Callable[[Any], bool]
"""Tells whether a rule has something to say of some ``Settings``."""

_HERE: Final = frozenset({"vllm", "transformers", "scripted"})
_THERE: Final = frozenset({"vllm-http", "vllm-pool"})


@dataclass(frozen=True, slots=True)
class Clash:
    """Settings that can't all hold."""

    names: tuple[str, ...]
    applies: Applies
    why: str
    """What can't hold and what to do; ``{name}`` is the value of a setting."""


@dataclass(frozen=True, slots=True)
class Idle:
    """A setting that was given and changes nothing."""

    name: str
    applies: Applies
    """What is asked only where the setting was given."""
    why: str


def _pair(lower: str, upper: str) -> Clash:
    return Clash(
        (lower, upper),
        lambda s: getattr(s, lower) > getattr(s, upper),
        f"{variable_of(lower)} is above {variable_of(upper)}: {{{lower}:g}} is more than {{{upper}:g}}",
    )


CLASHES: Final = (
    _pair("top_k", "max_top_k"),
    _pair("deadline_s", "max_deadline_s"),
    _pair("max_prompt_tokens", "max_context_tokens"),
    Clash(
        ("tenant_keys",),
        lambda s: "tenant_keys" in s.model_fields_set and not s.tenant_keys,
        "SEARCHR1_TENANT_KEYS is set but names no tenant; name one, or unset it",
    ),
    Clash(
        ("tenant_weights", "tenant_keys"),
        # Stored keys bring tenants of their own, and new ones as time goes by.
        lambda s: s.key_place is None and not s.tenant_weights.keys() <= s.tenant_keys.keys(),
        "SEARCHR1_TENANT_WEIGHTS names a tenant that has no key in SEARCHR1_TENANT_KEYS",
    ),
    Clash(
        ("ops_host", "ops_port"),
        lambda s: s.ops_port is None and s.ops_host is not None,
        "SEARCHR1_OPS_HOST is set without SEARCHR1_OPS_PORT: name the port, too",
    ),
    Clash(
        ("ops_port", "port"),
        lambda s: s.ops_port is not None and s.ops_port == s.port != 0,
        "SEARCHR1_OPS_PORT is {ops_port}, and so is SEARCHR1_PORT: give each its own",
    ),
    Clash(
        ("rewrite_url",),
        lambda s: (
            s.rewrite_url is not None
            and not (s.rewrite_url.startswith(("http://", "https://")) and s.rewrite_url.split("/")[2])
        ),
        "SEARCHR1_REWRITE_URL must begin with http:// or https:// and name a host",
    ),
    Clash(
        ("rewrite_url", "rewrite_model"),
        lambda s: s.rewrite_url is not None and s.rewrite_model is None,
        "SEARCHR1_REWRITE_URL needs SEARCHR1_REWRITE_MODEL, the name of the model there",
    ),
    Clash(
        ("engine", "engine_url"),
        lambda s: s.engine in _THERE and s.engine_url is None,
        "SEARCHR1_ENGINE is {engine}, a vLLM that runs elsewhere: say where by SEARCHR1_ENGINE_URL",
    ),
    Clash(
        ("engine", "engine_url"),
        lambda s: s.engine in _HERE and s.engine_url is not None,
        "SEARCHR1_ENGINE is {engine}, which runs in this process and has no address: leave SEARCHR1_ENGINE_URL out, "
        "or SEARCHR1_ENGINE",
    ),
    Clash(
        ("engine", "engine_url"),
        lambda s: s.engine == "vllm-http" and s.engine_url is not None and _names_several(s.engine_url),
        "SEARCHR1_ENGINE is vllm-http, which is one server, and SEARCHR1_ENGINE_URL names several: leave the first out",
    ),
    Clash(
        ("workers", "engine_url"),
        lambda s: s.workers > 1 and s.engine_url is None,
        "SEARCHR1_WORKERS is {workers}, and without SEARCHR1_ENGINE_URL each worker would start an engine of its own: "
        "name a running vLLM, or serve with one worker",
    ),
    Clash(
        ("workers", "redis_url"),
        lambda s: s.workers > 1 and s.redis_url is None,
        "SEARCHR1_WORKERS is {workers}, and without SEARCHR1_REDIS_URL each worker would keep runs, budgets and cached "
        "searches that no other one sees: name a Redis, or serve with one worker",
    ),
    Clash(
        ("workers", "max_concurrent_runs"),
        lambda s: s.max_concurrent_runs < s.workers,
        "SEARCHR1_WORKERS is {workers}, and SEARCHR1_MAX_CONCURRENT_RUNS is {max_concurrent_runs}: "
        "each worker must be allowed a run",
    ),
    Clash(
        ("max_choices", "max_concurrent_runs"),
        lambda s: "max_choices" in s.model_fields_set and s.max_choices > s.max_concurrent_runs + s.max_queued_runs,
        "SEARCHR1_MAX_CHOICES is {max_choices}, each a run of its own, and no more than {max_concurrent_runs} "
        "(SEARCHR1_MAX_CONCURRENT_RUNS) and {max_queued_runs} (SEARCHR1_MAX_QUEUED_RUNS) can be there at once",
    ),
    Clash(
        ("max_question_chars", "max_body_bytes"),
        lambda s: "max_question_chars" in s.model_fields_set and s.max_question_chars > s.max_body_bytes,
        "SEARCHR1_MAX_QUESTION_CHARS is {max_question_chars}, and no body of {max_body_bytes} bytes "
        "(SEARCHR1_MAX_BODY_BYTES) holds so many",
    ),
)
"""Settings that stop the start, in the order in which they are told."""


def _unless_rewriting(name: str) -> Idle:
    return Idle(
        name, lambda s: s.conversation != "rewrite", "nothing is rewritten unless SEARCHR1_CONVERSATION=rewrite"
    )


def _of_engine_here(name: str) -> Idle:
    return Idle(
        name,
        lambda s: s.engine_url is not None,
        "it is of an engine in this process, and that at SEARCHR1_ENGINE_URL is set up where it runs",
    )


def _of_cache(name: str) -> Idle:
    return Idle(name, lambda s: not s.cache, "SEARCHR1_CACHE is off")


IDLE: Final = (
    Idle("engine_api_key", lambda s: s.engine_url is None, "there is no SEARCHR1_ENGINE_URL to send it to"),
    *map(_of_engine_here, ("dtype", "max_num_seqs", "kv_cache_gib", "enforce_eager")),
    Idle(
        "enforce_eager",
        lambda s: s.engine_url is None and s.engine in ("transformers", "scripted"),
        "it is vLLM's, and SEARCHR1_ENGINE is another",
    ),
    Idle(
        "engine_priority",
        lambda s: s.engine_priority and s.engine in ("transformers", "scripted"),
        "SEARCHR1_ENGINE knows no priorities",
    ),
    Idle(
        "engine_silence_s",
        lambda s: s.engine_silence_s >= s.max_deadline_s,
        "no run lasts that long: SEARCHR1_MAX_DEADLINE_S is less",
    ),
    Idle("open", lambda s: s.open and s.asks_for_keys, "there are API keys, and they are asked for"),
    Idle(
        "share_cache",
        lambda s: s.share_cache and not s.api_keys and s.key_place is None,
        "it is for keys of no tenant, and there are none",
    ),
    Idle("share_cache", lambda s: s.share_cache and not s.cache, "SEARCHR1_CACHE is off"),
    *map(
        _of_cache,
        (
            "cache_soft_ttl_s",
            "cache_hard_ttl_s",
            "cache_empty_ttl_s",
            "cache_ttls_s",
            "cache_max_entry_bytes",
            "cache_memory_mib",
        ),
    ),
    Idle(
        "cache_memory_mib",
        lambda s: s.cache and s.redis_url is not None,
        "cached searches are in SEARCHR1_REDIS_URL, whose memory is bounded there",
    ),
    Idle(
        "cache_ttls_s",
        lambda s: s.cache and not s.cache_ttls_s.keys() <= _providers(s),
        "it names a provider that SEARCHR1_RETRIEVER does not",
    ),
    Idle(
        "run_memory_mib",
        lambda s: s.store_runs and s.redis_url is not None,
        "runs are in SEARCHR1_REDIS_URL, whose memory is bounded there",
    ),
    Idle("run_memory_mib", lambda s: not s.store_runs, "SEARCHR1_STORE_RUNS is off"),
    *map(
        _unless_rewriting,
        ("rewriter", "rewrite_url", "rewrite_model", "rewrite_api_key", "rewrite_timeout_s"),
    ),
    Idle(
        "rewrite_url",
        lambda s: s.conversation == "rewrite" and s.rewriter == "rules",
        "SEARCHR1_REWRITER=rules asks no server",
    ),
    Idle(
        "rewrite_model",
        lambda s: s.conversation == "rewrite" and s.rewrite_url is None,
        "there is no SEARCHR1_REWRITE_URL, so the served model rewrites",
    ),
    Idle(
        "rewrite_api_key",
        lambda s: s.conversation == "rewrite" and s.rewrite_url is None,
        "there is no SEARCHR1_REWRITE_URL to send it to",
    ),
    Idle(
        "rewrite_timeout_s",
        lambda s: s.conversation == "rewrite" and s.rewrite_timeout_s >= s.max_deadline_s,
        "no run lasts that long: SEARCHR1_MAX_DEADLINE_S is less",
    ),
    Idle(
        "search_budget_per_tenant",
        lambda s: s.search_budget_per_tenant is not None and not s.tenant_keys and s.key_place is None,
        "there are no SEARCHR1_TENANT_KEYS, and no stored keys",
    ),
    Idle(
        "search_budget_usd_per_tenant",
        lambda s: s.search_budget_usd_per_tenant is not None and not s.tenant_keys and s.key_place is None,
        "there are no SEARCHR1_TENANT_KEYS, and no stored keys",
    ),
    *(
        Idle(
            name,
            lambda s, name=name: getattr(s, name) is not None and not any(s.search_costs_usd.values()),  # type: ignore[misc]
            "no search costs anything: SEARCHR1_SEARCH_COSTS_USD has no price",
        )
        for name in ("search_budget_usd_per_key", "search_budget_usd_per_tenant")
    ),
    Idle(
        "search_budget_window_s",
        lambda s: (
            s.key_place is None
            and all(  # Stored keys bring limits of their own.
                limit is None
                for limit in (
                    s.search_budget_per_key,
                    s.search_budget_per_tenant,
                    s.search_budget_usd_per_key,
                    s.search_budget_usd_per_tenant,
                )
            )
        ),
        "there is no budget: see SEARCHR1_SEARCH_BUDGET_PER_KEY and the others",
    ),
    Idle(
        "search_costs_usd",
        lambda s: not {name.partition(":")[0] for name in s.search_costs_usd} <= _providers(s),
        "it names a provider that SEARCHR1_RETRIEVER does not",
    ),
    Idle(
        "search_timeout_s",
        lambda s: s.search_timeout_s >= s.max_deadline_s,
        "no run lasts that long: SEARCHR1_MAX_DEADLINE_S is less",
    ),
    Idle(
        "max_completion_tokens",
        lambda s: s.max_completion_tokens > s.max_run_tokens,
        "no turn can have more than the run: SEARCHR1_MAX_RUN_TOKENS is less",
    ),
    Idle(
        "run_ttl_s",
        lambda s: s.run_ttl_s < s.max_deadline_s,
        "a run that is open is kept all the same: SEARCHR1_MAX_DEADLINE_S is more",
    ),
    Idle(
        "access_log",
        lambda s: s.access_log and s.log_level in ("warning", "error"),
        "its lines are of the level info, and SEARCHR1_LOG_LEVEL leaves those out",
    ),
    Idle(
        "retriever_api_keys",
        lambda _: True,
        "it is of `searchr1 retriever serve`; what a gateway sends is SEARCHR1_RETRIEVE_API_KEY",
    ),
)
"""Settings of ``searchr1 serve`` without effect."""


def check_together(settings: Any) -> None:
    """Refuse settings that can't hold together. Raises ``ConfigurationError`` for the first rule that is broken."""
    for rule in CLASHES:
        if rule.applies(settings):
            values = {name: getattr(settings, name) for name in type(settings).model_fields if "{" + name in rule.why}
            raise ConfigurationError(rule.why.format(**values))


def idle(settings: Any, *, but: Collection[str] = ()) -> Iterator[str]:
    """Yield a line for each setting that was given and has no effect, by its variable; ``but`` nobody chose."""
    given = settings.model_fields_set.difference(but)
    for rule in IDLE:
        if rule.name in given and rule.applies(settings):
            yield f"{variable_of(rule.name)} has no effect: {rule.why}"


def _names_several(engine_url: str) -> bool:
    urls = split_urls(engine_url)
    return len(urls) > 1 or any(url.startswith(SEVERAL) for url in urls)


def _providers(settings: Any) -> set[str]:
    """Return the names of the providers that are asked; those that can't be read are told elsewhere."""
    found = set[str]()
    for word in settings.retriever.split(","):
        try:
            found.add(parse_spec(word).kind)
        except ConfigurationError:
            found.add(word.partition(":")[0].strip())
    return found
