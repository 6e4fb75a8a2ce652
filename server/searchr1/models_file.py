"""The models beside the one of the settings: a TOML file of ``[[models]]`` tables, each checked as settings are."""

import difflib
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, ValidationError

from searchr1.engines.pool.discovery import discovery_of
from searchr1.environment import variable_of
from searchr1.errors import ConfigurationError
from searchr1.loop.types import AddBos
from searchr1.settings import Settings

MAX_MODELS: Final = 64
"""Tables of one file: each model is a label of metrics."""
_MAX_FILE_BYTES: Final = 1 << 20
_ROUNDING: Final = 1e-9
_REFUSING: Final = ("max_turns", "max_run_tokens", "max_prompt_tokens")
"""Bounds above which a request is refused."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}$")]


class ModelTable(BaseModel):
    """One table. A key of a bound that is left out has the value of the setting of its name."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, strict=True)

    name: Name
    """The name that clients use, ``SEARCHR1_SERVED_NAME`` of this model."""
    candidate_of: Name | None = None
    """The model whose runs it gets a share of."""
    share: float = Field(default=0.0, ge=0, le=1, allow_inf_nan=False)
    """Part of the runs that ask for ``candidate_of`` which this model answers."""

    engine_url: str = Field(repr=False)
    """Required: one model alone can run in this process, that of the settings."""
    model: str | None = None
    """The name that the engine knows it by; by default ``name``."""
    engine: str | None = None
    engine_api_key: SecretStr | None = None
    engine_priority: bool | None = None
    engine_silence_s: float | None = None
    tokenizer: str | None = None
    """By default ``model``."""
    add_bos: AddBos = "auto"

    profile: str | None = None
    temperature: float | None = None
    max_turns: int | None = None
    max_run_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_observation_tokens: int | None = None
    max_context_tokens: int | None = None
    max_prompt_tokens: int | None = None
    max_concurrent_runs: int | None = None
    max_queued_runs: int | None = None

    def settings(self, base: Settings) -> Settings:
        """Return the settings of this model: its keys, and what ``base`` says of everything else.

        Nothing of the engine of ``base`` is taken over, its key least of all.

        Raises:
            ValidationError: a value is out of the setting's bounds, or two can't work together.
        """
        own: dict[str, object] = {
            "served_name": self.name,
            "model": self.model or self.name,
            "engine_url": self.engine_url,
            "engine": self.engine,
            "engine_api_key": self.engine_api_key,
            "engine_args": {},
            "tokenizer": self.tokenizer,
            "add_bos": self.add_bos,
            "models_file": None,
        }
        bounds = self.model_dump(exclude_none=True, exclude={"name", "candidate_of", "share", *own})
        given = {name: getattr(base, name) for name in base.model_fields_set}
        if self.max_queued_runs is not None:  # That of ``base`` is one worker's part already.
            bounds["max_queued_runs"] = -(-self.max_queued_runs // base.workers)
        settings = Settings(**{**given, **bounds, **own})
        # The environment's would be merged with what is given.
        return settings.model_copy(update={"engine_args": {}})


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One model to serve."""

    settings: Settings
    """The operator's, with what the model has of its own."""
    candidate_of: str | None = None
    share: float = 0.0


def model_configs(settings: Settings) -> tuple[ModelConfig, ...]:
    """Return the models to serve: first the one of ``settings``, then those of its ``models_file``.

    Raises:
        ConfigurationError: the file can't be read, or a table of it can't work; the message names file, table and key.
    """
    if settings.models_file is None:
        return (ModelConfig(settings),)
    path = settings.models_file
    tables = [_table(given, where) for given, where in _tables(path)]
    _check_names([settings.public_name, *(table.name for table in tables)], path)
    _check_candidates(settings.public_name, tables, path)
    configs = (ModelConfig(settings), *(_config(table, settings, f"{path}: model {table.name!r}") for table in tables))
    _check_bounds(configs, path)
    return configs


def _tables(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the tables of a file, each with the words by which errors call it."""
    file = f"{variable_of('models_file')}: {path}"
    try:
        with path.open("rb") as opened:
            data = opened.read(_MAX_FILE_BYTES + 1)
        if len(data) > _MAX_FILE_BYTES:
            raise ConfigurationError(f"{file} is too large for a list of models")
        content = tomllib.loads(data.decode("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{file} can't be read: {error.strerror or 'no reason is given'}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        # The error of TOML tells line and column, and quotes a character at most.
        raise ConfigurationError(f"{file} is no TOML: {error}") from error
    tables = content.pop("models", None)
    if content:
        raise ConfigurationError(f"{file}: {next(iter(content))!r} is not read: write [[models]] tables alone")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise ConfigurationError(f"{file} has no [[models]] table; write one for each model")
    if len(tables) > MAX_MODELS:
        raise ConfigurationError(f"{file} has {len(tables)} models; at most {MAX_MODELS} can be served")
    for number, table in enumerate(tables, start=1):
        name = table.get("name")
        yield table, f"{path}: model {name!r}" if isinstance(name, str) else f"{path}: [[models]] table {number}"


def _table(given: dict[str, Any], where: str) -> ModelTable:
    try:
        return ModelTable.model_validate(given)
    except ValidationError as error:
        raise ConfigurationError(f"{where}: {_explained(error)}") from error


def _config(table: ModelTable, settings: Settings, where: str) -> ModelConfig:
    try:
        own = table.settings(settings)
    except ValidationError as error:
        raise ConfigurationError(f"{where}: {_explained(error)}") from error
    try:
        discovery_of(own.engine_config().urls)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: engine_url: {error}") from error
    return ModelConfig(own, table.candidate_of, table.share)


def _check_names(names: Sequence[str], path: Path) -> None:
    name, number = Counter(names).most_common(1)[0]
    if number > 1:
        default = " (one is that of the settings)" if name == names[0] else ""
        raise ConfigurationError(f"{path}: name: {number} models are called {name!r}{default}; name each differently")


def _check_candidates(default: str, tables: Sequence[ModelTable], path: Path) -> None:
    served = {default, *(table.name for table in tables if table.candidate_of is None)}
    shares: dict[str, float] = {}
    for table in tables:
        where = f"{path}: model {table.name!r}"
        if table.candidate_of is None:
            if table.share:
                raise ConfigurationError(f"{where}: share: it is a candidate's: say of which model by 'candidate_of'")
            continue
        if table.candidate_of not in served:
            names = ", ".join(sorted(served))
            raise ConfigurationError(
                f"{where}: candidate_of: there is no {table.candidate_of!r} that can have a candidate, but {names}"
            )
        shares[table.candidate_of] = shares.get(table.candidate_of, 0.0) + table.share
    for name, share in shares.items():
        if share > 1 + _ROUNDING:
            raise ConfigurationError(f"{path}: share: the candidates of {name!r} have {share:g} together, more than 1")


def _check_bounds(configs: Sequence[ModelConfig], path: Path) -> None:
    """Refuse candidates that would refuse requests which the model that was asked takes."""
    by_name = {config.settings.public_name: config.settings for config in configs}
    for config in configs:
        if config.candidate_of is None:
            continue
        own, asked = config.settings, by_name[config.candidate_of]
        for key in _REFUSING:
            if (bound := getattr(own, key)) < (needed := getattr(asked, key)):
                raise ConfigurationError(
                    f"{path}: model {own.public_name!r}: {key}: {bound} is less than {needed}, which "
                    f"{config.candidate_of!r} takes: its candidate would refuse what people ask it"
                )


def _explained(error: ValidationError) -> str:
    return "; ".join(_fault(fault["type"], fault["loc"], fault["msg"]) for fault in error.errors())


def _fault(kind: str, where: tuple[int | str, ...], message: str) -> str:
    key = str(where[0]) if where else ""
    if kind == "extra_forbidden":
        nearest = difflib.get_close_matches(key, ModelTable.model_fields, n=1, cutoff=0.7)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(ModelTable.model_fields)}"
        return f"{key!r} is no key of a model; {hint}"
    words = " ".join(message.removeprefix("Value error, ").split())
    return f"{key}: {words}" if key else words
