"""Every setting of the server, in one class. Each is also an environment variable: ``SEARCHR1_`` and its name.

Secrets may be files instead: with ``SEARCHR1_SECRETS_DIR=/run/secrets``, ``/run/secrets/searchr1_admin_key``.
"""

import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from searchr1.engines.factory import SEVERAL, EngineConfig, split_urls
from searchr1.environment import PREFIX, SECRETS_DIR, check_environment, variable_of
from searchr1.errors import ConfigurationError, as_value_error
from searchr1.keyring.key_place import KeyPlace, key_place
from searchr1.keys import check_tenants, owners
from searchr1.loop.neutralized import neutralized
from searchr1.loop.profiles.base import Profile
from searchr1.loop.profiles.registry import profile_named
from searchr1.loop.types import AddBos, Limits
from searchr1.retrieval.config import BudgetConfig, CacheConfig, ResilienceConfig, SearchConfig
from searchr1.retrieval.keys import usable_key
from searchr1.retrieval.registry import key_variable, providers
from searchr1.scheduling.fair_queue import MAX_WEIGHT, MIN_WEIGHT
from searchr1.scheduling.options import SchedulingOptions
from searchr1.settings_access import check_ports, check_weights
from searchr1.settings_faults import not_json
from searchr1.settings_keys import ProviderKeys
from searchr1.settings_values import Key, Keys, SplitKeys, SplitTexts, field_of
from searchr1.settings_workers import check_workers

C = TypeVar("C")

_AT_MOST = (
    ("top_k", "max_top_k"),
    ("deadline_s", "max_deadline_s"),
    ("max_prompt_tokens", "max_context_tokens"),
)
"""Pairs of settings of which the first must not be above the second."""

_TOKENS_OF_A_TURN = 100
"""Taken to be sampled in a turn, before runs have told."""


class Settings(BaseSettings):
    """Settings of an operator. The ``max_…`` bounds cap what a request may ask for."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="ignore", validate_default=True, hide_input_in_errors=True
    )

    model: str
    """A folder, a hub name, or the name that the remote engine serves."""
    served_name: str | None = None
    """The model name that clients use; by default the folder's or hub name's last part, or the remote name."""
    engine: str | None = None
    """The kind of engine: ``vllm``, ``vllm-http``, ``transformers``, …; by default vLLM, at ``engine_url`` if given."""
    engine_url: str | None = Field(default=None, repr=False)
    """Base URLs of running vLLMs, comma-separated, or one that stands for several. By default vLLM runs here."""
    engine_cache_salt: bool | None = None
    """Keep the engine's cached prefixes of tenants apart; by default where there are tenants."""
    engine_session_secret: Key | None = None
    """Makes the ids by which engines know runs and tenants; by default a random one of this process."""
    engine_api_key: Key | None = None
    engine_silence_s: float = Field(default=30.0, gt=0)
    """Seconds without any output, or another sign of work, after which an engine that has work counts as stalled."""
    engine_args: dict[str, Any] = Field(default_factory=dict)
    """More arguments of the vLLM in this process, as JSON, by vLLM's names: ``{"tensor_parallel_size": 8}``."""
    engine_priority: bool = False
    """Let later turns go first, so that their prefixes stay cached. A remote vLLM needs ``--scheduling-policy
    priority`` for it."""
    tokenizer: str | None = None
    """A folder or hub name of a tokenizer; by default the model's."""
    models_file: Path | None = None
    """A TOML file of more models, beside ``model``; see ``models_file.py``."""
    add_bos: AddBos = "auto"
    retriever: str = Field(repr=False)
    """One provider or several, comma-separated, tried in this order: ``tavily:``, ``index:PATH``."""
    retriever_api_keys: SplitKeys = ()
    """Keys of ``searchr1 retriever serve``, comma-separated in the environment. Its clients send one as
    ``SEARCHR1_RETRIEVE_API_KEY``."""
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    ops_port: int | None = Field(default=None, ge=0, le=65535)
    """A port of its own for ``/metrics``, ``/admin`` and ``/docs``, which ``port`` then no longer serves."""
    ops_host: str | None = None
    """The address of ``ops_port``; by default ``host``."""
    workers: int = Field(default=1, ge=1, le=64)
    """Processes that serve the port together; more than one need ``engine_url`` and ``redis_url``."""
    open: bool = False
    """Serve without API keys to all who reach ``host``; without it a server with no keys serves this machine alone."""
    api_keys: SplitKeys = ()
    """Keys that clients may use, comma-separated in the environment; none means that no key is asked for."""
    admin_key: Key | None = None
    """The key that opens ``/admin``, and the list of runs where there are no API keys; without one, both
    are closed to all."""
    cors_origins: SplitTexts = ()
    """Origins whose pages may call this server from a browser, comma-separated in the environment; ``*`` is any."""
    page_about: str | None = Field(default=None, max_length=500)
    """One sentence under the page's question box that says what can be asked."""
    page_examples: tuple[str, ...] = Field(default=(), max_length=8)
    """Example questions that the page offers, as JSON: ``["…", …]``."""
    tenant_keys: dict[str, Keys] = Field(default_factory=dict)
    """More keys, by tenant, as JSON: ``{"acme": ["key", …]}``. Tenants share neither cached searches nor budgets."""
    keys_file: Path | None = None
    """More keys, in a file that ``searchr1 keys`` writes; they come and go while the server runs."""
    keys_in_redis: bool = False
    """The same in Redis, for all gateways that share ``redis_url``."""
    share_cache: bool = field_of(SearchConfig, "share_cache")

    profile: str = "search-r1"
    """The format that the model was trained on: its tags, texts and answers; see ``docs/reference/loop.md``."""
    conversation: Literal["last", "fold", "rewrite"] = "fold"
    """What becomes of earlier messages: ``fold`` puts them before the question, ``rewrite`` has the question written
    anew so that it needs none, ``last`` leaves them out."""
    system: Literal["fold", "ignore"] = "fold"
    """What becomes of system and developer messages: ``fold`` puts them before the question, ``ignore`` drops them."""
    rewriter: Literal["model", "rules"] = "model"
    """What rewrites: a ``model``, or the demo's ``rules``, which know questions about countries and cities alone."""
    rewrite_url: str | None = None
    """Base URL of an OpenAI-compatible server that rewrites; by default the served model does it."""
    rewrite_model: str | None = None
    """The model that ``rewrite_url`` is asked for."""
    rewrite_api_key: SecretStr | None = None
    rewrite_timeout_s: float = Field(default=10.0, gt=0)
    """Seconds that a rewriting may take; then the conversation is folded. They count towards the run's deadline."""
    sanitize: bool = True
    """Neutralize tags and special tokens inside passages before the model reads them. Off is how checkpoints train."""
    provider_keys: dict[str, SecretStr] = Field(default_factory=dict)
    """Keys by provider. Each is read from ``SEARCHR1_<NAME>_API_KEY``, or from the file ``searchr1_<name>_api_key``."""
    passage_chars: int = field_of(SearchConfig, "passage_chars")
    search_timeout_s: float = field_of(SearchConfig, "timeout_s")

    redis_url: SecretStr | None = None
    """Redis for searches, budgets and runs: ``redis://``, ``rediss://``, ``redis+sentinel://`` or
    ``redis+cluster://``; by default they live in this process's memory."""

    # What these mean, their defaults and bounds: retrieval/config.py. ``search`` gathers them by name.
    cache: bool = field_of(CacheConfig, "enabled")
    cache_soft_ttl_s: float = field_of(CacheConfig, "soft_ttl_s")
    cache_hard_ttl_s: float = field_of(CacheConfig, "hard_ttl_s")
    cache_empty_ttl_s: float = field_of(CacheConfig, "empty_ttl_s")
    cache_ttls_s: dict[str, tuple[float, float]] = field_of(CacheConfig, "ttls_s")
    cache_max_entry_bytes: int = field_of(CacheConfig, "max_entry_bytes")
    cache_memory_mib: int = field_of(CacheConfig, "memory_mib")

    search_attempts: int = field_of(ResilienceConfig, "attempts")
    search_breaker_failures: int = field_of(ResilienceConfig, "breaker_failures")
    search_breaker_reset_s: float = field_of(ResilienceConfig, "breaker_reset_s")
    search_max_concurrent: int = field_of(ResilienceConfig, "max_concurrent")
    search_rate_per_s: float | None = field_of(ResilienceConfig, "rate_per_s")
    search_hedge: bool = field_of(ResilienceConfig, "hedge")

    search_costs_usd: dict[str, float] = field_of(BudgetConfig, "costs_usd")
    search_budget_window_s: float = field_of(BudgetConfig, "window_s")
    search_budget_per_key: int | None = field_of(BudgetConfig, "per_key")
    search_budget_per_tenant: int | None = field_of(BudgetConfig, "per_tenant")
    search_budget_usd_per_key: float | None = field_of(BudgetConfig, "usd_per_key")
    search_budget_usd_per_tenant: float | None = field_of(BudgetConfig, "usd_per_tenant")

    dtype: str = "auto"
    """Type of the weights of the engine in this process: auto, bfloat16, float16, float32."""
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
    """Temperature of sampling, where a request does not say; 0 is greedy."""
    deadline_s: float = Field(default=120.0, gt=0)
    """Seconds that a run may take, where a request does not say."""
    max_deadline_s: float = Field(default=600.0, gt=0)
    max_question_chars: int = Field(default=8000, ge=1)
    max_body_bytes: int = Field(default=1_048_576, ge=1024)
    body_timeout_s: float = Field(default=30.0, gt=0)
    """Seconds within which a request's body must have arrived."""
    max_connections: int = Field(default=2048, ge=1)
    """Connections at once. One more takes the place of the one that has waited longest for a request, or gets a 503."""
    keep_alive_s: float = Field(default=75.0, gt=0)
    """Seconds that a connection may wait for its next request."""
    header_timeout_s: float = Field(default=30.0, gt=0)
    """Seconds within which a request's headers must have arrived."""
    max_header_bytes: int = Field(default=32_768, ge=1024)
    """Bytes of a request's line and headers."""
    max_concurrent_runs: int = Field(default=256, ge=1)
    """Runs under way at once; one more waits, or gets a 503 with ``Retry-After``."""
    max_queued_runs: int = Field(default=256, ge=0)
    """Runs that may wait for their start, each until its deadline; a tenant may have half of these places."""
    tenant_weights: dict[str, Annotated[float, Field(ge=MIN_WEIGHT, le=MAX_WEIGHT)]] = Field(default_factory=dict)
    """Shares of tenants while runs wait, as JSON: ``{"acme": 3}``; 1 for those that are not named."""
    drain_s: float = Field(default=2.0, ge=0)
    """Seconds for which requests are still taken after a SIGTERM, while ``/readyz`` says 503 already; none after a
    SIGINT."""
    shutdown_grace_s: float = Field(default=25.0, ge=0)
    """Seconds after that for which running requests may go on; then their runs end as failed."""
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(str.lower)] = "info"
    """Least level of the lines in the log."""
    access_log: bool = False
    """A line in the log for each request: method, path, status, seconds; no query, body or key."""
    store_runs: bool = True
    """Keep what native and Responses runs did, so that they can be resumed, shared, replayed and exported."""
    run_ttl_s: float = Field(default=86_400.0, gt=0)
    """Seconds that runs are kept: in Redis where ``redis_url`` is set, else in memory."""
    run_memory_mib: int = Field(default=64, ge=1)
    """Bound of the runs in memory; the oldest go first."""
    resume_grace_s: float = Field(default=10.0, ge=0)
    """Seconds that a run whose reader has left goes on, so that the reader can come back."""
    max_choices: int = Field(default=4, ge=1, le=64)
    """Most choices (``n``) of one chat completion; each is a run of its own."""
    heartbeat_s: float = Field(default=15.0, gt=0)
    """Seconds of silence on a stream after which a comment line is sent."""
    stream_interval_ms: float = Field(default=30.0, ge=0, le=1000)
    """Milliseconds between two pieces of a stream's text, at most, when many streams are open: fewer open ones have
    shorter intervals, and one alone has none. 0 sends each token as it comes."""

    @field_validator("tenant_keys")
    @classmethod
    @as_value_error()
    def _check_tenants(cls, value: dict[str, tuple[SecretStr, ...]]) -> dict[str, tuple[SecretStr, ...]]:
        check_tenants(value)
        return value

    @field_validator("provider_keys")
    @classmethod
    @as_value_error()
    def _check_provider_keys(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        return {name: SecretStr(usable_key(key.get_secret_value(), name)) for name, key in value.items()}

    @field_validator("profile")
    @classmethod
    @as_value_error()
    def _check_profile(cls, value: str) -> str:
        return profile_named(value).name

    @model_validator(mode="after")
    def _check_rewriting(self) -> Self:
        if self.rewrite_url is not None and not re.match(r"https?://[^/]", self.rewrite_url):
            raise ValueError("rewrite_url must begin with http:// or https:// and name a host")
        if self.rewrite_url is not None and self.rewrite_model is None:
            raise ValueError("rewrite_url needs rewrite_model, the name of the model there")
        return self

    @model_validator(mode="after")
    @as_value_error()
    def _check_together(self) -> Self:
        if "tenant_keys" in self.model_fields_set and not self.tenant_keys:
            raise ConfigurationError("SEARCHR1_TENANT_KEYS is set but names no tenant; name one, or unset it")
        owners(self.api_keys, self.tenant_keys, self.admin_key)
        check_weights(self.tenant_weights, self.tenant_keys, has_stored_keys=self.key_place is not None)
        check_ports(self.port, self.ops_port, self.ops_host)
        for lower, upper in _AT_MOST:
            if getattr(self, lower) > getattr(self, upper):
                raise ConfigurationError(
                    f"{variable_of(lower)} is above {variable_of(upper)}: "
                    f"{getattr(self, lower):g} is more than {getattr(self, upper):g}"
                )
        check_workers(
            self.workers,
            engine_url=self.engine_url,
            has_redis=self.redis_url is not None,
            max_concurrent_runs=self.max_concurrent_runs,
        )
        self.search()
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """See ``BaseSettings``. Keys of providers have a source of their own."""
        keys = ProviderKeys(settings_cls, getattr(file_secret_settings, "secrets_dir", None))
        return init_settings, env_settings, keys, dotenv_settings, file_secret_settings

    @classmethod
    def load(cls, **given: Any) -> "Settings":
        """Return settings from ``given``, then the environment, then the files of ``SEARCHR1_SECRETS_DIR``.

        Raises:
            ConfigurationError: a variable or a secret file is unknown, empty, unreadable, or not the JSON it must be.
            ValidationError: a setting is missing or out of its bounds, or two can't work together; see ``explained``.
        """
        check_environment(os.environ, cls.variables())
        try:
            return cls(**{"_secrets_dir": os.environ.get(SECRETS_DIR), **given})
        except SettingsError as error:
            raise not_json(error) from None
        except RecursionError:
            raise ConfigurationError("a setting is wrong: its JSON is nested too deep") from None

    @classmethod
    def variables(cls) -> frozenset[str]:
        """Return the names of all variables that are settings."""
        keys = (key_variable(one.name) for one in providers().values() if one.key != "none")
        return frozenset(map(variable_of, cls.model_fields)) | frozenset(keys)

    @property
    def asks_for_keys(self) -> bool:
        """True where clients need an API key."""
        return bool(self.api_keys or self.tenant_keys) or self.has_stored_keys

    @property
    def has_stored_keys(self) -> bool:
        """True where keys come from a file or from Redis."""
        return self.keys_file is not None or self.keys_in_redis

    @property
    def key_place(self) -> KeyPlace | None:
        """Where stored keys are; None where there are none."""
        redis_url = self.redis_url.get_secret_value() if self.redis_url else None
        return key_place(self.keys_file, in_redis=self.keys_in_redis, redis_url=redis_url)

    @property
    def public_name(self) -> str:
        """The model's name on the API."""
        if self.served_name:
            return self.served_name
        if self.engine_url is None and Path(self.model).is_dir():
            return Path(self.model).resolve().name
        return self.model

    def limits(self) -> Limits:
        """Return the loop's bounds where a request does not narrow them."""
        return Limits(
            max_turns=self.max_turns,
            max_completion_tokens=self.max_completion_tokens,
            max_observation_tokens=self.max_observation_tokens,
            max_context_tokens=self.max_context_tokens,
            max_run_tokens=self.max_run_tokens,
        )

    def scheduling(self) -> SchedulingOptions:
        """Return the bounds of runs that go on and that wait, and the growth that is expected of the first ones."""
        growth_tokens = self.max_turns * (self.max_observation_tokens + _TOKENS_OF_A_TURN)
        return SchedulingOptions(
            max_runs=self.max_concurrent_runs,
            max_queued=self.max_queued_runs,
            max_queued_per_tenant=-(-self.max_queued_runs // 2) if self.asks_for_keys else self.max_queued_runs,
            first_growth_tokens=min(growth_tokens, self.max_context_tokens),
        )

    def engine_config(self, vocab_size: int | None = None) -> EngineConfig:
        """Return the engine to open; no token id of a server may reach ``vocab_size``."""
        urls = () if self.engine_url is None else split_urls(self.engine_url)
        several = len(urls) > 1 or any(url.startswith(SEVERAL) for url in urls)
        return EngineConfig(
            kind=self.engine or ("vllm" if not urls else "vllm-pool" if several else "vllm-http"),
            model=self.model,
            urls=urls,
            roll_weights=True,
            api_key=self.engine_api_key.get_secret_value() if self.engine_api_key else None,
            vocab_size=vocab_size,
            priority_scheduling=self.engine_priority,
            dtype=self.dtype,
            max_model_len=self.max_context_tokens + self.max_completion_tokens,
            max_num_seqs=self.max_num_seqs,
            kv_cache_gib=self.kv_cache_gib,
            enforce_eager=self.enforce_eager,
            engine_args=self.engine_args,
            silence_s=self.engine_silence_s,
        )

    @property
    def salts_caches(self) -> bool:
        """True where the engine's cached prefixes of tenants are kept apart."""
        if self.engine_cache_salt is None:
            return bool(self.tenant_keys) or self.has_stored_keys
        return self.engine_cache_salt

    def loop_profile(self) -> Profile:
        """Return the profile that rollouts run with: neutralized if ``sanitize`` is on."""
        profile = profile_named(self.profile)
        return neutralized(profile) if self.sanitize else profile

    def search(self) -> SearchConfig:
        """Return the configuration of the search layer. Raises ``ConfigurationError``."""
        return SearchConfig(
            retriever=self.retriever,
            timeout_s=self.search_timeout_s,
            passage_chars=self.passage_chars,
            share_cache=self.share_cache,
            secrets={name: key.get_secret_value() for name, key in self.provider_keys.items()},
            redis_url=self.redis_url.get_secret_value() if self.redis_url else None,
            cache=self._gather(CacheConfig, "cache_", enabled=self.cache),
            resilience=self._gather(ResilienceConfig, "search_"),
            budget=self._gather(
                BudgetConfig,
                "search_budget_",
                costs_usd=self.search_costs_usd,
                keys_have_limits=self.has_stored_keys,
            ),
        )

    def _gather(self, config: type[C], prefix: str, **given: object) -> C:
        """Return a ``config`` whose fields are ``given``, or else the settings of ``prefix`` and their names."""
        names = [field.name for field in fields(config) if field.name not in given]  # type: ignore[arg-type]
        return config(**given, **{name: getattr(self, prefix + name) for name in names})
