"""The environment that settings come from: variables and secret files that nobody reads, or that hold nothing.

A misspelt variable would be overlooked, and a server meant to be closed would stand open. So whatever has our prefix
has to be known, and has to say something.
"""

import difflib
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from searchr1.errors import ConfigurationError

PREFIX = "SEARCHR1_"
SECRETS_DIR = "SEARCHR1_SECRETS_DIR"
OTHER_VARIABLES = frozenset(
    {
        SECRETS_DIR,
        "SEARCHR1_API_KEY",
        "SEARCHR1_API_KEY_FILE",
        "SEARCHR1_BASE_URL",
        "SEARCHR1_CONFIG",
        "SEARCHR1_DATA_DIR",
        "SEARCHR1_DEMO",
        "SEARCHR1_DEMO_WIKI",
        "SEARCHR1_SCREENSHOTS",
        "SEARCHR1_TEST_MODEL",
        "SEARCHR1_URL",
    }
)
"""Variables of ours that are no settings of the server: those of clients, of options, and of the tests."""

_SERVICE_LINK = re.compile(r"SEARCHR1_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")
_NAMED_SERVICE_PORT = re.compile(r"SEARCHR1_\w+_PORT")
_MAX_SECRET_BYTES = 1 << 20


def variable_of(setting: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + setting.upper()


def check_environment(environ: Mapping[str, str], settings: Collection[str]) -> None:
    """Refuse variables and secret files with our prefix that are unknown, empty or unreadable.

    ``settings`` are the names of the variables that are settings. Values are never quoted.

    Raises:
        ConfigurationError: one of them is; the message names it.
    """
    known = frozenset(settings) | OTHER_VARIABLES
    for name, value in sorted(environ.items()):
        variable = name.upper()
        if not variable.startswith(PREFIX) or _is_service_link(variable, value):
            continue
        _require_known(variable, known, variable)
        if variable in settings or variable == SECRETS_DIR:
            _require_text(value, variable)
    if (folder := _secrets_dir(environ)) is not None:
        _check_files(folder, settings)


def given_variables(environ: Mapping[str, str]) -> frozenset[str]:
    """Return the variables of ours that ``environ`` or a file of its secrets folder gives."""
    folder = _secrets_dir(environ)
    files = [] if folder is None or not folder.is_dir() else [path.name for path in folder.iterdir()]
    return frozenset(name.upper() for name in (*environ, *files) if name.upper().startswith(PREFIX))


def _secrets_dir(environ: Mapping[str, str]) -> Path | None:
    value = environ.get(SECRETS_DIR)
    return None if value is None else Path(value).expanduser()


def _is_service_link(variable: str, value: str) -> bool:
    """Tell whether Kubernetes set this variable: it does so for each service whose name begins with ``searchr1``."""
    by_value = _NAMED_SERVICE_PORT.fullmatch(variable) and re.match(r"(tcp|udp|sctp)://", value)
    return bool(by_value or _SERVICE_LINK.fullmatch(variable))


def _check_files(folder: Path, settings: Collection[str]) -> None:
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise ConfigurationError(
            f"{SECRETS_DIR} must name a folder that can be read: {error.strerror or 'it cannot be'}"
        ) from error
    for path in paths:
        variable = path.name.upper()
        if not variable.startswith(PREFIX):
            continue
        where = f"the secret file {_printable(path.name)} of {SECRETS_DIR}"
        _require_known(variable, settings, where)
        _require_text(_text_of(path, where), where)


def _text_of(path: Path, where: str) -> str:
    try:
        if not path.is_file():
            raise ConfigurationError(f"{where} is no file")
        if path.parent.resolve() not in path.resolve().parents:
            raise ConfigurationError(f"{where} leads out of that folder, so it is not read; copy it there")
        with path.open("rb") as file:
            data = file.read(_MAX_SECRET_BYTES + 1)
        if len(data) > _MAX_SECRET_BYTES:
            raise ConfigurationError(f"{where} is too large for a secret")
        return data.decode("utf-8")
    except OSError as error:
        raise ConfigurationError(f"{where} cannot be read: {error.strerror or 'no reason is given'}") from error
    except UnicodeDecodeError:
        raise ConfigurationError(f"{where} is not UTF-8 text") from None  # the error would quote it


def _require_known(variable: str, known: Collection[str], where: str) -> None:
    if variable in known:
        return
    endings = sorted(name.removeprefix(PREFIX) for name in known)
    nearest = difflib.get_close_matches(variable.removeprefix(PREFIX), endings, n=1, cutoff=0.7)
    hint = f"did you mean {PREFIX}{nearest[0]}?" if nearest else "see docs/reference/settings.md"
    raise ConfigurationError(f"{_printable(where)} is no setting of this release; {hint}")


def _require_text(value: str, where: str) -> None:
    if value.strip() in ("", "null"):  # what is written as JSON can say nothing by a null, too
        raise ConfigurationError(f"{where} is there but empty; give it a value, or take it away")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
