"""Every setting of the server, in one class. Each is also an environment variable: ``SEARCHR1_`` and its name.

A file may give them by their names as well (``settings_file.py``); what can't hold together is in
``settings_together.py``.

Secrets may be files instead: with ``SEARCHR1_SECRETS_DIR=/run/secrets``, ``/run/secrets/searchr1_admin_key``.
"""

import os
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from searchr1.engines.factory import SEVERAL, EngineConfig, split_urls
from searchr1.environment import PREFIX, SECRETS_DIR, check_environment, given_variables, variable_of
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
from searchr1.settings_faults import explained, not_json
from searchr1.settings_file import SettingsFile, explained_in
from searchr1.settings_keys import ProviderKeys
from searchr1.settings_together import check_together
from searchr1.settings_values import Key, Keys, SplitKeys, SplitTexts, field_of

C = TypeVar("C")

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
    """The model's name on the API; by default the folder's or hub name's last part, or the remote name."""
    engine: str | None = None
    """The kind of engine: ``vllm`` (started here), ``vllm-http`` (a running one), ``vllm-pool`` (several),
    ``transformers`` (in this process, slower, needs no vLLM) or ``scripted`` (replays the lines of the file ``model``,
    for tests); by default ``vllm-http`` with an ``engine_url``, ``vllm-pool`` with several, else ``vllm``."""
    engine_url: str | None = Field(default=None, repr=False)
    """A running vLLM, such as ``http://10.0.0.5:8000`` (``/v1`` at its end is fine), or several, comma-separated; also
    ``dns+http://NAME:PORT`` and ``k8s://NAMESPACE/SERVICE:PORT``: see docs/guides/behind-a-router.md. By default vLLM
    is started here."""
    engine_cache_salt: bool | None = None
    """Keep cached prefixes of tenants apart in vLLM, so that nobody can find out by time what another tenant has asked;
    by default where there are ``tenant_keys`` or stored keys."""
    engine_session_secret: Key | None = None
    """Makes the ids by which engines and routers know runs and tenants; gateways that share engines need the same one.
    By default a random one of this process."""
    engine_api_key: Key | None = None
    """The key that the remote vLLM asks for; a name and a password may stand in ``engine_url`` instead."""
    engine_silence_s: float = Field(default=30.0, gt=0)
    """Seconds in which an engine that has work gives no output, and its counters stand still, until its completions
    fail and it counts as stalled; after a third of them it is not ready. In a pool, also the longest time that one
    completion may stand still."""
    engine_args: dict[str, Any] = Field(default_factory=dict)
    """More arguments of the vLLM that is started here, as JSON, by vLLM's names: ``{"tensor_parallel_size": 8}``; on
    the command line ``--engine-arg NAME=VALUE``, as often as needed."""
    engine_priority: bool = False
    """Let later turns go first, so that their prefixes stay cached. A remote vLLM needs ``--scheduling-policy
    priority`` for it."""
    tokenizer: str | None = None
    """A folder or hub name of a tokenizer; by default the model's."""
    models_file: Path | None = None
    """A TOML file of more models beside ``model``, each behind vLLMs of its own: see docs/guides/several-models.md."""
    add_bos: AddBos = "auto"
    """Begin prompts with the model's ``<bos>`` where the chat template does not write it; ``auto`` does as the
    tokenizer says where there is no chat template, by its ``add_bos_token`` or, but for Llama 3, its post-processor."""
    retriever: str = Field(repr=False)
    """One provider or several, comma-separated, tried in this order: ``tavily:``, ``index:PATH``, …; see
    docs/guides/search.md."""
    retriever_api_keys: SplitKeys = ()
    """Keys that ``searchr1 retriever serve`` asks for; a gateway sends one as ``SEARCHR1_RETRIEVE_API_KEY``."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    ops_port: int | None = Field(default=None, ge=0, le=65535)
    """A port for ``/metrics``, ``/admin`` and ``/docs`` alone, which ``port`` then answers with 404
    (docs/guides/keys.md)."""
    ops_host: str | None = None
    """The address of ``ops_port``; by default ``host``."""
    workers: int = Field(default=1, ge=1, le=64)
    """Processes that serve the port together; several need ``engine_url`` and ``redis_url``. Bounds hold for all
    together: see docs/guides/deploy.md#several-processes-several-gateways."""
    open: bool = False
    """Serve without API keys to all who reach ``host``, and take any ``Host`` header; without it a server that has no
    keys serves its own machine alone."""
    api_keys: SplitKeys = ()
    """Keys that clients may use, beside ``tenant_keys`` and stored keys; where there are none of all three, no key is
    asked for, on this machine alone or with ``open``."""
    admin_key: Key | None = None
    """The key that opens ``/admin``, as stored keys with the scope ``admin`` do, and the list of runs where there are
    no API keys, as a bearer token; to all others both are closed."""
    cors_origins: SplitTexts = ()
    """Origins whose pages may call this server from a browser; ``*`` is any."""
    page_about: str | None = Field(default=None, max_length=500)
    """One sentence under the question box of the page (docs/guides/page.md) that says what can be asked; the demo has
    its own."""
    page_examples: tuple[str, ...] = Field(default=(), max_length=8)
    """Example questions that the page offers, as JSON: ``["What is …?"]``; the demo has its own."""
    tenant_keys: dict[str, Keys] = Field(default_factory=dict)
    """More keys, by tenant, as JSON: ``{"acme": ["key"]}``. Tenants share neither cached searches nor budgets."""
    keys_file: Path | None = None
    """A file of more keys, which ``searchr1 keys`` writes (docs/guides/keys.md); they come and go while it serves."""
    keys_in_redis: bool = False
    """The same in Redis, for all gateways that share ``redis_url``."""
    share_cache: bool = field_of(SearchConfig, "share_cache")

    profile: str = "search-r1"
    """The format that the model was trained on, its tags, texts and answers: see docs/reference/loop.md#profiles."""
    conversation: Literal["last", "fold", "rewrite"] = "fold"
    """What becomes of earlier messages: ``fold`` puts them before the question, ``rewrite`` has the last one written
    anew so that it needs none, ``last`` leaves them out; see docs/reference/chat.md#conversations."""
    system: Literal["fold", "ignore"] = "fold"
    """What becomes of system and developer messages and of ``instructions``: ``fold`` puts them before the question,
    ``ignore`` leaves them out."""
    rewriter: Literal["model", "rules"] = "model"
    """What rewrites: a model, or the rules of the demo (docs/guides/demo.md), which know questions about countries and
    cities alone."""
    rewrite_url: str | None = None
    """Base URL of an OpenAI-compatible server that rewrites; by default the served model does it."""
    rewrite_model: str | None = None
    """The model that ``rewrite_url`` is asked for."""
    rewrite_api_key: SecretStr | None = None
    """The key that ``rewrite_url`` asks for."""
    rewrite_timeout_s: float = Field(default=10.0, gt=0)
    """Seconds that a rewriting may take, out of the run's deadline; then the conversation is folded."""
    sanitize: bool = True
    """Neutralize tags and special tokens inside passages before the model reads them. Off is how checkpoints train."""
    provider_keys: dict[str, SecretStr] = Field(default_factory=dict)
    """Keys of search providers, by name, each a variable of its own, such as ``SEARCHR1_TAVILY_API_KEY``, or a secret
    file: see docs/guides/search.md."""
    passage_chars: int = field_of(SearchConfig, "passage_chars")
    search_timeout_s: float = field_of(SearchConfig, "timeout_s")

    redis_url: SecretStr | None = None
    """Redis for searches, budgets, runs and shares of capacity: ``redis://``, ``rediss://``, ``unix://``,
    ``redis+sentinel://`` or ``redis+cluster://``; by default they live in this process's memory."""

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
    """Type of the weights of the engine that is started here: auto, bfloat16, float16, float32."""
    max_num_seqs: int = Field(default=64, ge=1)
    """Sequences that the engine started here runs at once."""
    kv_cache_gib: float | None = Field(default=None, gt=0)
    """KV cache of the engine started here, GiB; by default vLLM's choice. Set it on a CPU, where vLLM otherwise wants
    nearly all memory."""
    enforce_eager: bool = False
    """Skip compilation in the engine started here: a faster start, slower tokens."""

    max_turns: int = Field(default=4, ge=1, le=64)
    """Turns of one run in which the model may search."""
    max_run_tokens: int = Field(default=2500, ge=1)
    """Sampled tokens of one run, all turns together."""
    max_completion_tokens: int = Field(default=500, ge=1)
    """Sampled tokens of one turn."""
    max_observation_tokens: int = Field(default=500, ge=1)
    """Tokens that are kept of one observation."""
    max_context_tokens: int = Field(default=4096, ge=256)
    """Tokens that are sent to the engine; more are cut on the left."""
    max_prompt_tokens: int = Field(default=2048, ge=64)
    """Tokens of the question's prompt."""
    top_k: int = Field(default=3, ge=1)
    """Passages per search, where a request does not say."""
    max_top_k: int = Field(default=10, ge=1)
    """Most passages per search that a request may ask for."""
    temperature: float = Field(default=0.0, ge=0, le=2)
    """Temperature of sampling, where a request does not say; 0 is greedy."""
    deadline_s: float = Field(default=120.0, gt=0)
    """Seconds that a run may take, where a request does not say."""
    max_deadline_s: float = Field(default=600.0, gt=0)
    """Most seconds that a request may ask for."""
    max_question_chars: int = Field(default=8000, ge=1)
    """Characters of a question."""
    max_body_bytes: int = Field(default=1_048_576, ge=1024)
    """Bytes of a request's body."""
    body_timeout_s: float = Field(default=30.0, gt=0)
    """Seconds within which a request's body must have arrived."""
    max_connections: int = Field(default=2048, ge=1)
    """Connections at once. One more takes the place of the one that has waited longest for a request, or gets a 503.
    Fewer where the limit of open files is low: the log says so."""
    keep_alive_s: float = Field(default=75.0, gt=0)
    """Seconds that a connection may wait for its next request; more than the proxy in front keeps it."""
    header_timeout_s: float = Field(default=30.0, gt=0)
    """Seconds within which a request's headers must have arrived."""
    max_header_bytes: int = Field(default=32_768, ge=1024)
    """Bytes of a request's line and headers."""
    max_concurrent_runs: int = Field(default=256, ge=1)
    """Runs under way at once; more wait (``max_queued_runs``)."""
    max_queued_runs: int = Field(default=256, ge=0)
    """Runs that may wait for their start, each until its deadline, while the engine's KV cache is spoken for or
    ``max_concurrent_runs`` go on; the next one gets a 503. Where there are keys, a tenant, or a key without one, may
    have half of these places."""
    tenant_weights: dict[str, Annotated[float, Field(ge=MIN_WEIGHT, le=MAX_WEIGHT)]] = Field(default_factory=dict)
    """Shares of tenants while runs wait, as JSON: ``{"acme": 3}``, each from 0.01 to 100; 1 for those that are not
    named. The keys of a tenant share alike. A tenant that holds three fifths of the KV cache starts nothing more while
    another has asked within a minute."""
    drain_s: float = Field(default=2.0, ge=0)
    """Seconds for which requests are still taken after a SIGTERM, while ``/readyz`` says 503 already; none after a
    SIGINT."""
    shutdown_grace_s: float = Field(default=25.0, ge=0)
    """Seconds after ``drain_s`` for which running requests may go on; then stored runs are handed to another gateway
    where there is one, and the others end as failed (``stopping``)."""
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(str.lower)] = "info"
    """Least level of the lines in the log."""
    log_format: Annotated[Literal["text", "json"], BeforeValidator(str.lower)] = "text"
    """Form of these lines: ``text`` for people, or an object of ``json`` in each (docs/guides/logs.md)."""
    access_log: bool = False
    """A line in the log for each request: method, path, status, seconds; no query, body or key."""
    trace_content: bool = False
    """Record questions, queries, passages and texts of the model in traces (docs/guides/tracing.md)."""
    store_runs: bool = True
    """Keep what native and Responses runs did, so that they can be resumed, fetched, shared, replayed and exported: in
    Redis where ``redis_url`` is set, else in memory."""
    run_ttl_s: float = Field(default=86_400.0, gt=0)
    """Seconds that runs are kept."""
    run_memory_mib: int = Field(default=64, ge=1)
    """MiB that the runs in memory may take; the oldest go first."""
    resume_grace_s: float = Field(default=10.0, ge=0)
    """Seconds that a run whose reader has left goes on, so that the reader can come back."""
    max_choices: int = Field(default=4, ge=1, le=64)
    """Most choices (``n``) of one chat completion; each is a run of its own."""
    heartbeat_s: float = Field(default=15.0, gt=0)
    """Seconds of silence on a stream after which a comment line is sent."""
    stream_interval_ms: float = Field(default=30.0, ge=0, le=1000)
    """Milliseconds between two pieces of a stream's text, at most, while many streams are open (60 or more): fewer have
    shorter intervals, and one alone has none. 0 sends each token as it comes, and costs up to 1.6 times the CPU."""

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
    @as_value_error()
    def _check_together(self) -> Self:
        check_together(self)
        owners(self.api_keys, self.tenant_keys, self.admin_key)
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
    def load(cls, *, file: SettingsFile | None = None, **given: Any) -> "Settings":
        """Return settings from ``given``, the environment, the files of ``SEARCHR1_SECRETS_DIR``, then from ``file``.

        Raises:
            ConfigurationError: a variable or a secret file is unknown, empty, unreadable, or not the JSON it must be;
                or ``file`` is given, and a setting is missing or wrong.
            ValidationError: a setting is missing or out of its bounds, or two can't work together; see ``explained``.
        """
        check_environment(os.environ, cls.variables())
        of_file = {} if file is None else file.beside(given_variables(os.environ))
        try:
            return cls(**{"_secrets_dir": os.environ.get(SECRETS_DIR), **of_file, **given})
        except ValidationError as error:
            if file is None:
                raise
            raise ConfigurationError(f"a setting is wrong: {explained_in(file, error, explained)}") from None
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
            return Path(self.model).absolute().name  # A training run's checkpoint is a link to one of a step.
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
