"""What is told of settings that are wrong: by the names of their variables, without a value of a key."""

import re

from pydantic import ValidationError
from pydantic_settings import SettingsError

from searchr1.environment import variable_of
from searchr1.errors import ConfigurationError


def explained(error: ValidationError) -> str:
    """Return in one line what is wrong with settings, by the names of their variables; no value of a key is quoted."""
    return "; ".join(dict.fromkeys(_explained(fault["loc"], fault["msg"]) for fault in error.errors()))


def not_json(error: SettingsError) -> ConfigurationError:
    """Return what is told of a value that is not JSON. Raise it without ``error``, whose cause quotes the value."""
    field = re.search(r'field "(\w+)"', str(error))
    name = variable_of(field[1]) if field else "one of them"
    return ConfigurationError(f"a setting is wrong: {name}: it must be JSON, written whole")


def _explained(where: tuple[int | str, ...], message: str) -> str:
    # What follows the field's name may be a tenant's, or a key that was put in its place.
    name = f"{variable_of(str(where[0]))}: " if where else ""
    return name + " ".join(message.removeprefix("Value error, ").split())
