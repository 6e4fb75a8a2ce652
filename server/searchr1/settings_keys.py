"""The source of ``Settings`` for keys of search providers: a variable for each provider that takes one."""

from typing import Any

from pydantic import create_model
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from searchr1.environment import PREFIX
from searchr1.retrieval.registry import key_variable, providers


class ProviderKeys(PydanticBaseSettingsSource):
    """Keys of the providers that take one, from the environment or from the files of a secrets folder."""

    def __init__(self, settings_cls: type[BaseSettings], secrets_dir: Any) -> None:
        super().__init__(settings_cls)
        self._secrets_dir = secrets_dir

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Give nothing: there is one value of all keys together."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the field ``provider_keys``, without providers that have no key."""
        names = [one.name for one in providers().values() if one.key != "none"]
        variables = {key_variable(name).removeprefix(PREFIX).lower(): name for name in names}
        optional: Any = (str | None, None)
        # A class of its own, so that keys are looked up and read as any other setting is.
        lookup: Any = create_model("_Keys", __base__=_OneByOne, **dict.fromkeys(variables, optional))
        keys = lookup(_secrets_dir=self._secrets_dir)
        found = {name: getattr(keys, variable) for variable, name in variables.items()}
        return {"provider_keys": {name: key for name, key in found.items() if key is not None}}


class _OneByOne(BaseSettings):
    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore")
