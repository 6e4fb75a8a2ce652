"""Every setting of the server, in one class. Each is also an environment variable: ``SEARCHR1_`` and its name."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from searchr1.loop.types import Limits


class Settings(BaseSettings):
    """What an operator can set. The ``max_…`` bounds cap what a request may ask for."""

    model_config = SettingsConfigDict(env_prefix="SEARCHR1_", extra="ignore", validate_default=True)

    model: str
    """A folder, a hub name, or the name that the remote engine serves."""
    served_name: str | None = None
    """The model name that clients use; by default the folder's or hub name's last part, or the remote name."""
    engine_url: str | None = None
    """Base URL of a running vLLM; without it, vLLM runs in this process."""
    engine_api_key: SecretStr | None = None
    engine_priority: bool = False
    """Let later turns go first, so that their prefixes stay cached. A remote vLLM needs ``--scheduling-policy
    priority`` for it."""
    tokenizer: str | None = None
    """A folder or hub name; by default the model's."""
    retriever: str
    """``http://…/retrieve`` or ``index:PATH``."""
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """Keys that clients may use, comma-separated in the environment; none means that no key is asked for."""

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
    max_concurrent_runs: int = Field(default=256, ge=1)
    """More than these get a 503 with ``Retry-After``."""
    shutdown_grace_s: float = Field(default=30.0, ge=0)
    """How long running requests may go on after a SIGTERM."""
    heartbeat_s: float = Field(default=15.0, gt=0)
    """Silence on a stream after which a comment line is sent."""

    @field_validator("api_keys", mode="before")
    @classmethod
    def _split_keys(cls, value: object) -> object:
        return tuple(key.strip() for key in value.split(",") if key.strip()) if isinstance(value, str) else value

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
