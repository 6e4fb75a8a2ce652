"""The file of settings that ``searchr1 serve --config`` reads: TOML, each setting by its name in small letters.

Settings that are tables in the environment's JSON are tables here too: ``[tenant_keys]``, ``[engine_args]``. Keys of
providers stand by the provider's name in ``[provider_keys]``. What the file says holds where neither an option, the
environment nor a secret file says otherwise; a table of the environment replaces the file's, as a whole.
"""

import difflib
import json
import stat
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, SecretStr, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from searchr1.environment import PREFIX, variable_of
from searchr1.errors import ConfigurationError
from searchr1.retrieval.registry import key_variable, providers

_MAX_FILE_BYTES: Final = 1 << 20
_PROVIDER_KEYS: Final = "provider_keys"


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """A file of settings that was read; its values are those of the settings' fields, each by itself in order."""

    path: Path
    values: Mapping[str, Any] = field(repr=False)
    is_secret_to_others: bool
    """False where other users of the machine can read it."""

    def beside(self, variables: Collection[str]) -> dict[str, Any]:
        """Return the values of settings that have none of the environment's ``variables``."""
        values = {name: value for name, value in self.values.items() if variable_of(name) not in variables}
        if _PROVIDER_KEYS in values:
            keys = values[_PROVIDER_KEYS].items()
            values[_PROVIDER_KEYS] = {name: key for name, key in keys if key_variable(name) not in variables}
        return values

    def warnings(self) -> list[str]:
        """Return a line for secrets that others can read."""
        secrets = [name for name, value in self.values.items() if _holds_secret(value)]
        if self.is_secret_to_others or not secrets:
            return []
        return [f"{self.path} holds secrets ({', '.join(secrets)}) and can be read by others: chmod o-r {self.path}"]


def read_settings_file(path: Path, fields: Mapping[str, FieldInfo]) -> SettingsFile:
    """Return what a file says of the settings ``fields``.

    Raises:
        ConfigurationError: the file can't be read, or a key of it is unknown, empty, or of the wrong type or bounds.
            The message names file and key, and quotes no value.
    """
    where = f"{path}"
    try:
        with path.open("rb") as file:
            mode = path.stat().st_mode
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{where} can't be read: {error.strerror or 'no reason is given'}") from error
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigurationError(f"{where} is too large for a file of settings")
    try:
        content = tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        # Its text tells line and column, and quotes a character at most.
        raise ConfigurationError(f"{where} is no TOML: {error}") from None
    values = {key: _checked(key, value, fields, f"{where}: {key}") for key, value in content.items()}
    return SettingsFile(path, values, not mode & stat.S_IROTH)


def explained_in(file: SettingsFile, error: ValidationError, told: Callable[[ValidationError], str]) -> str:
    """Return in one line what is wrong with settings of which some come from ``file``.

    ``told`` says it by the names of variables.
    """
    faults = error.errors()
    if not any(fault["loc"] and fault["loc"][0] in file.values for fault in faults):
        return f"{told(error)} (settings are from {file.path}, too)"
    said = told(error)
    for name in file.values:
        said = said.replace(f"{variable_of(name)}: ", f"{file.path}: {name}: ")
    return said


def _checked(key: str, value: Any, fields: Mapping[str, FieldInfo], where: str) -> Any:
    if key not in fields:
        raise ConfigurationError(f"{where} is no setting; {_hint(key, fields)}")
    if value in ("", [], {}):
        raise ConfigurationError(f"{where} is there but empty; give it a value, or take it away")
    if key == _PROVIDER_KEYS and isinstance(value, dict):
        _check_providers(value, where)
    try:
        return _validated(value, fields[key])
    except ValidationError as error:
        raise ConfigurationError(f"{where}: {'; '.join(dict.fromkeys(map(_fault, error.errors())))}") from None
    except TypeError:
        raise ConfigurationError(f"{where}: its value is of the wrong type") from None


def _validated(value: Any, field: FieldInfo) -> Any:
    """Return what a value means, which has to be of the field's type: no number for a text or the other way round."""
    prepares = [one for one in field.metadata if isinstance(one, BeforeValidator)]
    if isinstance(value, str) and prepares:  # As a text of the environment is taken, comma-separated or so.
        return _adapter(field, field.metadata).validate_python(value, strict=True)
    # Strict JSON takes arrays for tuples.
    adapter = _adapter(field, [one for one in field.metadata if one not in prepares])
    return adapter.validate_json(json.dumps(value), strict=True)


def _adapter(field: FieldInfo, metadata: Sequence[Any]) -> "TypeAdapter[Any]":
    taken: Any = Annotated[field.annotation, *metadata] if metadata else field.annotation
    return TypeAdapter(taken)


def _check_providers(keys: Mapping[str, Any], where: str) -> None:
    known = [one.name for one in providers().values() if one.key != "none"]
    for name in keys:
        if name not in known:
            raise ConfigurationError(f"{where}.{name} is no provider that takes a key; there are {', '.join(known)}")


def _fault(fault: Any) -> str:
    # What follows the field may be a tenant's name, or a key that was put in its place.
    return " ".join(str(fault["msg"]).removeprefix("Value error, ").split())


def _hint(key: str, fields: Mapping[str, FieldInfo]) -> str:
    plain = key.lower().removeprefix(PREFIX.lower())
    by_provider = {key_variable(name).removeprefix(PREFIX).lower(): name for name in providers()}
    if plain in by_provider:
        return f"write {by_provider[plain]} in [provider_keys]"
    nearest = difflib.get_close_matches(plain, fields, n=1, cutoff=0.7)
    return f"did you mean {nearest[0]}?" if nearest else "see docs/reference/settings.md"


def _holds_secret(value: Any) -> bool:
    if isinstance(value, SecretStr):
        return True
    if isinstance(value, dict):
        return any(map(_holds_secret, value.values()))
    return isinstance(value, tuple) and any(map(_holds_secret, value))
