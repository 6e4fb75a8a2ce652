"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from searchr1.errors import ConfigurationError


def check_output(path: Path, *, replace: bool) -> None:
    """Raise ``ConfigurationError`` where ``path`` is taken, and may not be replaced."""
    if path.is_dir():
        raise ConfigurationError(f"{path} is a folder; give a file")
    if path.exists() and not replace:
        raise ConfigurationError(f"{path} exists. Give --force to replace it, or another --output")


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of ``path`` when the block ends well, and vanishes when it does not.

    Raises:
        ConfigurationError: it can't be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            part.unlink()
