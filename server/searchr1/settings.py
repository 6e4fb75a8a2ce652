"""Every setting of the server, in one class. Each is also an environment variable: ``SEARCHR1_`` and its name.

Secrets may be files instead: with ``SEARCHR1_SECRETS_DIR=/run/secrets``, ``/run/secrets/searchr1_tavily_api_key``.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from searchr1.engines.factory import EngineConfig
from searchr1.errors import ConfigurationError
from searchr1.loop.neutralized import neutralized
from searchr1.loop.profiles.base import Profile
from searchr1.loop.profiles.registry import profile_named
from searchr1.loop.types import Limits
from searchr1.retrieval.config import BudgetConfig, CacheConfig, ResilienceConfig, SearchConfig

PROVIDER_KEYS = ("tavily", "searxng", "brave", "serper", "exa", "opensearch", "elasticsearch", "qdrant", "retrieve")
"""Providers that may have a key: each has a setting ``<name>_api_key``."""


class Settings(BaseSettings):
    """What an operator can set. The ``max_…`` bounds cap what a request may ask for."""

    model_config = SettingsConfigDict(env_prefix="SEARCHR1_", extra="ignore", validate_default=True)

    model: str
    """A folder, a hub name, or the name that the remote engine serves."""
    served_name: str | None = None
    """The model name that clients use; by default the folder's or hub name's last part, or the remote name."""
    engine: str | None = None
    """The kind of engine: ``vllm``, ``vllm-http``, ``transformers``, …; by default vLLM, at ``engine_url`` if given."""
    engine_url: str | None = None
    """Base URL of a running vLLM; without it, vLLM runs in this process."""
    engine_api_key: SecretStr | None = None
    engine_priority: bool = False
    """Let later turns go first, so that their prefixes stay cached. A remote vLLM needs ``--scheduling-policy
    priority`` for it."""
    tokenizer: str | None = None
    """A folder or hub name; by default the model's."""
    retriever: str
    """One provider or several, comma-separated, tried in this order: ``tavily:``, ``index:PATH``."""
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """Keys that clients may use, comma-separated in the environment; none means that no key is asked for."""
    admin_key: SecretStr | None = None
    """Opens ``POST /admin/reload``; without one it is closed to all."""
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Origins whose pages may call this server from a browser, comma-separated in the environment; ``*`` is any."""
    tenant_keys: dict[str, tuple[SecretStr, ...]] = Field(default_factory=dict)
    """More keys, by tenant, as JSON: ``{"acme": ["key", …]}``. Tenants share neither cached searches nor budgets."""

    profile: str = "search-r1"
    """The format that the model was trained on: its tags, texts and how its answers are read; see ``docs/loop.md``."""
    sanitize: bool = True
    """Neutralize tags and special tokens inside passages before the model reads them. Off is how checkpoints train."""
    tavily_api_key: SecretStr | None = None
    searxng_api_key: SecretStr | None = None
    brave_api_key: SecretStr | None = None
    serper_api_key: SecretStr | None = None
    exa_api_key: SecretStr | None = None
    opensearch_api_key: SecretStr | None = None
    elasticsearch_api_key: SecretStr | None = None
    qdrant_api_key: SecretStr | None = None
    retrieve_api_key: SecretStr | None = None
    """Sent to a ``/retrieve`` server as a bearer token."""
    passage_chars: int = Field(default=2000, ge=50)
    """Characters of a web result's text that are kept, in whole sentences."""

    redis_url: SecretStr | None = None
    """Where searches are cached and runs are kept: ``redis://``, ``rediss://``, ``redis+sentinel://`` or
    ``redis+cluster://``; by default in this process's memory."""
    cache: bool = True
    """Keep what searches found."""
    cache_soft_ttl_s: float = Field(default=86_400.0, gt=0)
    """Age up to which an entry is a hit. An older one is served as stale while one refresh runs."""
    cache_hard_ttl_s: float = Field(default=604_800.0, gt=0)
    """Age at which an entry is dropped."""
    cache_empty_ttl_s: float = Field(default=300.0, gt=0)
    """Of searches that found nothing."""
    cache_ttls_s: dict[str, tuple[float, float]] = Field(default_factory=dict)
    """(soft, hard) of single providers, as JSON: ``{"tavily": [3600, 86400]}``."""
    cache_max_entry_bytes: int = Field(default=262_144, ge=1024)
    cache_memory_mib: int = Field(default=64, ge=1)
    """Bound of the cache in memory."""

    search_attempts: int = Field(default=3, ge=1, le=10)
    """Calls of a provider per search, retries included."""
    search_breaker_failures: int = Field(default=5, ge=1)
    """Failures in a row after which a provider is left alone."""
    search_breaker_reset_s: float = Field(default=30.0, gt=0)
    """How long it is left alone."""
    search_max_concurrent: int = Field(default=64, ge=1)
    """Calls at once, per provider."""
    search_rate_per_s: float | None = Field(default=None, gt=0)
    """Calls per second, per provider."""
    search_hedge: bool = False
    """Send a second, identical call when one takes longer than 95 of 100 did."""
    search_costs_usd: dict[str, float] = Field(default_factory=dict)
    """Price of one search by provider, as JSON: ``{"tavily": 0.008}``."""
    search_budget_window_s: float = Field(default=86_400.0, gt=0)
    """Length of the window in which budgets count; it starts with its first search."""
    search_budget_per_key: int | None = Field(default=None, ge=0)
    """Searches of one API key per window that reach a provider; cached ones are free."""
    search_budget_per_tenant: int | None = Field(default=None, ge=0)
    search_budget_usd_per_key: float | None = Field(default=None, ge=0)
    search_budget_usd_per_tenant: float | None = Field(default=None, ge=0)

    dtype: str = "auto"
    """Of the engine in this process: auto, bfloat16, float16, float32."""
    max_num_seqs: int = Field(default=64, ge=1)
    """Sequences that the engine in this process runs at once."""
    kv_cache_gib: float | None = Field(default=None, gt=0)
    """KV cache of the engine in this process; by default vLLM's choice. On a CPU, set it."""
    enforce_eager: bool = False
    """Skip the engine's compilation: a faster start, slower tokens."""

    max_turns: int = Field(default=4, ge=1, le=64)
    max_run_tokens: int = Field(default=2500, ge=1)
    """Sampled tokens of one run, all turns together."""
    max_completion_tokens: int = Field(default=500, ge=1)
    """Sampled tokens of one turn."""
    max_observation_tokens: int = Field(default=500, ge=1)
    max_context_tokens: int = Field(default=4096, ge=256)
    max_prompt_tokens: int = Field(default=2048, ge=64)
    top_k: int = Field(default=3, ge=1)
    """Passages per search, where a request does not say."""
    max_top_k: int = Field(default=10, ge=1)
    temperature: float = Field(default=0.0, ge=0, le=2)
    """Where a request does not say; 0 is greedy."""
    deadline_s: float = Field(default=120.0, gt=0)
    """Of one run, where a request does not say."""
    max_deadline_s: float = Field(default=600.0, gt=0)
    search_timeout_s: float = Field(default=10.0, gt=0)
    max_question_chars: int = Field(default=8000, ge=1)
    max_body_bytes: int = Field(default=1_048_576, ge=1024)
    body_timeout_s: float = Field(default=30.0, gt=0)
    """Within which a request's body must have arrived."""
    max_concurrent_runs: int = Field(default=256, ge=1)
    """More than these get a 503 with ``Retry-After``."""
    shutdown_grace_s: float = Field(default=30.0, ge=0)
    """How long running requests may go on after a SIGTERM."""
    store_runs: bool = True
    """Keep what native and Responses runs did, so that they can be resumed, shared, replayed and exported."""
    run_ttl_s: float = Field(default=86_400.0, gt=0)
    """How long runs are kept: in Redis where ``redis_url`` is set, else in memory."""
    run_memory_mib: int = Field(default=64, ge=1)
    """Bound of the runs in memory; the oldest go first."""
    resume_grace_s: float = Field(default=10.0, ge=0)
    """How long a run whose reader has left goes on, so that the reader can come back."""
    max_choices: int = Field(default=4, ge=1, le=64)
    """Most choices (``n``) of one chat completion; each is a run of its own."""
    heartbeat_s: float = Field(default=15.0, gt=0)
    """Silence on a stream after which a comment line is sent."""

    @field_validator("api_keys", "cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("profile")
    @classmethod
    def _check_profile(cls, value: str) -> str:
        try:
            return profile_named(value).name
        except ConfigurationError as error:
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def _check_ttls(self) -> Self:
        pairs = {"": (self.cache_soft_ttl_s, self.cache_hard_ttl_s), **self.cache_ttls_s}
        for provider, (soft, hard) in pairs.items():
            if not 0 < soft < hard:
                where = f"cache_ttls_s[{provider!r}]" if provider else "cache_soft_ttl_s and cache_hard_ttl_s"
                raise ValueError(f"{where}: the soft limit must be positive and shorter than the hard one")
        return self

    @classmethod
    def load(cls, **given: Any) -> "Settings":
        """Settings from ``given``, then the environment, then the files of ``SEARCHR1_SECRETS_DIR``."""
        return cls(**{"_secrets_dir": os.environ.get("SEARCHR1_SECRETS_DIR"), **given})

    @property
    def public_name(self) -> str:
        """The model's name on the API."""
        if self.served_name:
            return self.served_name
        if self.engine_url is None and Path(self.model).is_dir():
            return Path(self.model).resolve().name
        return self.model

    def limits(self) -> Limits:
        """The loop's bounds where a request does not narrow them."""
        return Limits(
            max_turns=self.max_turns,
            max_completion_tokens=self.max_completion_tokens,
            max_observation_tokens=self.max_observation_tokens,
            max_context_tokens=self.max_context_tokens,
            max_run_tokens=self.max_run_tokens,
        )

    def engine_config(self) -> EngineConfig:
        """Return the engine to open."""
        return EngineConfig(
            kind=self.engine or ("vllm" if self.engine_url is None else "vllm-http"),
            model=self.model,
            urls=() if self.engine_url is None else (self.engine_url,),
            api_key=self.engine_api_key.get_secret_value() if self.engine_api_key else None,
            priority_scheduling=self.engine_priority,
            dtype=self.dtype,
            max_model_len=self.max_context_tokens + self.max_completion_tokens,
            max_num_seqs=self.max_num_seqs,
            kv_cache_gib=self.kv_cache_gib,
            enforce_eager=self.enforce_eager,
        )

    def loop_profile(self) -> Profile:
        """Return the profile that rollouts run with: neutralized if ``sanitize`` is on."""
        profile = profile_named(self.profile)
        return neutralized(profile) if self.sanitize else profile

    def search(self) -> SearchConfig:
        """How the search layer is set up."""
        keys = {name: getattr(self, f"{name}_api_key") for name in PROVIDER_KEYS}
        return SearchConfig(
            retriever=self.retriever,
            timeout_s=self.search_timeout_s,
            passage_chars=self.passage_chars,
            secrets={name: key.get_secret_value() for name, key in keys.items() if key is not None},
            cache=CacheConfig(
                enabled=self.cache,
                redis_url=self.redis_url.get_secret_value() if self.redis_url else None,
                soft_ttl_s=self.cache_soft_ttl_s,
                hard_ttl_s=self.cache_hard_ttl_s,
                empty_ttl_s=self.cache_empty_ttl_s,
                ttls_s=self.cache_ttls_s,
                max_entry_bytes=self.cache_max_entry_bytes,
                memory_bytes=self.cache_memory_mib * 2**20,
            ),
            resilience=ResilienceConfig(
                attempts=self.search_attempts,
                breaker_failures=self.search_breaker_failures,
                breaker_reset_s=self.search_breaker_reset_s,
                max_concurrent=self.search_max_concurrent,
                rate_per_s=self.search_rate_per_s,
                hedge=self.search_hedge,
            ),
            budget=BudgetConfig(
                costs_usd=self.search_costs_usd,
                window_s=self.search_budget_window_s,
                per_key=self.search_budget_per_key,
                per_tenant=self.search_budget_per_tenant,
                usd_per_key=self.search_budget_usd_per_key,
                usd_per_tenant=self.search_budget_usd_per_tenant,
            ),
        )
