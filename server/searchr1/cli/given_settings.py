"""The settings of a command that serves or checks them: from options, the environment and a file."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # at run time it costs the time that `--help` should not take
    from searchr1.settings import Settings


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and what an operator should know of how they were given."""

    settings: "Settings"
    warnings: tuple[str, ...]


def load_settings(config: Path | None, given: Mapping[str, Any], demo: Mapping[str, Any]) -> Loaded:
    """Return the settings: ``given`` by options, the environment's, those of the file ``config``, those of the demo.

    Raises:
        ConfigurationError: one of them is missing or wrong, or a part of the environment is.
        ValidationError: one is wrong, and there is no file; see ``searchr1.settings_faults.explained``.
    """
    from searchr1.environment import check_environment
    from searchr1.errors import ConfigurationError
    from searchr1.settings import Settings
    from searchr1.settings_file import read_settings_file
    from searchr1.settings_together import idle

    check_environment(os.environ, Settings.variables())
    file = None if config is None else read_settings_file(config, Settings.model_fields)
    of_file = {} if file is None else file.values
    chosen = {**{name: value for name, value in demo.items() if name not in of_file}, **given}
    for name in ("model", "retriever"):
        if name not in chosen and name not in of_file and f"SEARCHR1_{name.upper()}" not in os.environ:
            raise ConfigurationError(f"--{name} is missing. Give it, or use --demo. See searchr1 serve --help")
    settings = Settings.load(file=file, **chosen)
    return Loaded(
        settings,
        (*(() if file is None else file.warnings()), *idle(settings, but=demo.keys() - given.keys() - of_file.keys())),
    )
