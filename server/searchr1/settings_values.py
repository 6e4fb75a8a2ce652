"""Types of settings: keys and lists as an operator writes them, and fields with another configuration's bounds."""

from dataclasses import MISSING, fields
from typing import Annotated, Any, get_type_hints

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import NoDecode

from searchr1.errors import as_value_error
from searchr1.keys import checked_key, split_keys


@as_value_error()
def _checked(key: SecretStr) -> SecretStr:
    return SecretStr(checked_key(key.get_secret_value()))


def _each_once(keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    return tuple(dict.fromkeys(keys))


@as_value_error()
def _split_keys(value: object) -> object:
    return split_keys(value) if isinstance(value, str) else value


def _split_texts(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


Key = Annotated[SecretStr, AfterValidator(_checked)]
"""A key that a client could send."""
Keys = Annotated[tuple[Key, ...], AfterValidator(_each_once)]
SplitKeys = Annotated[Keys, NoDecode, BeforeValidator(_split_keys)]
"""Keys, comma-separated in the environment."""
SplitTexts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_texts)]
"""Texts, comma-separated in the environment."""


def field_of(config: type, name: str) -> Any:
    """Return a field with the default and the bounds that ``config`` gives its own field ``name``."""
    [own] = [one for one in fields(config) if one.name == name]
    default = own.default if own.default_factory is MISSING else Field(default_factory=own.default_factory)
    return FieldInfo.from_annotated_attribute(get_type_hints(config, include_extras=True)[name], default)
