"""The Wikipedia demo: what lies where, what its page says, and the settings with which it is served.

A pretrained model and the leads of English Wikipedia's articles come from two packages (``packages.py``); what this
repository trained is in ``adapters/``, and added to the model. Nothing but the adapters is in the repository.
"""

import hashlib
import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from searchr1.demo.wiki.packages import LEADS, SMOLLM2
from searchr1.errors import ConfigurationError

ADAPTERS = Path(str(files("searchr1.demo.wiki") / "adapters"))
"""Folders of adapters, as PEFT lays one out, added in the order of their names; ``README.md`` there says how."""
TRAINED_ON = "trained-on.txt"
"""Beside the adapters: what they were trained on, for the page, as the end of "This model was trained …"."""
_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

EXAMPLES = (
    "Who was the first woman in space?",
    "What is the deepest lake in the world?",
    "Who directed the film Seven Samurai?",
    "What is the largest moon of Saturn?",
)
_WHICH = "The Wikipedia demo: SmolLM2-135M-Instruct, a small language model (135 million parameters)"
_UNTRAINED = "as it was published. It was not trained to search: expect answers that are missing or wrong."
_WHAT = (
    "It can search the first paragraphs of 10,033 English Wikipedia articles, and nothing else. "
    "It often errs: check its sources. Each question is taken alone."
)


@dataclass(frozen=True, slots=True)
class Place:
    """What the demo consists of on disk, below a folder for data."""

    data_dir: Path
    adapters: Path = ADAPTERS

    @property
    def packages(self) -> Path:
        """The folder that the packages are downloaded to."""
        return self.data_dir / "wiki" / "packages"

    @property
    def base(self) -> Path:
        """The pretrained model, as Hugging Face lays one out."""
        return self.data_dir / "wiki" / f"smollm2-{SMOLLM2.version}"

    @property
    def corpus(self) -> Path:
        """The leads, as passages."""
        return self.data_dir / "wiki" / f"leads-{LEADS.version}.jsonl"

    @property
    def index(self) -> Path:
        """The leads, to be searched."""
        return self.data_dir / "wiki" / f"leads-{LEADS.version}-index"

    @property
    def model(self) -> Path:
        """The model that is served: ``base``, or where there are adapters, its sum with just these."""
        added = self.added()
        if not added:
            return self.base
        digest = hashlib.sha256()
        for path in (adapter / name for adapter in added for name in (_CONFIG, _WEIGHTS)):
            digest.update(path.read_bytes())
        return self.base.with_name(f"{self.base.name}-{digest.hexdigest()[:12]}")

    def added(self) -> tuple[Path, ...]:
        """Return the folders of the adapters, in their order."""
        return tuple(sorted(path.parent for path in self.adapters.glob(f"*/{_CONFIG}")))

    def about(self) -> str:
        """Return what the page says of the demo.

        Raises:
            ConfigurationError: there are adapters, and nothing that says what they were trained on.
        """
        if not self.added():
            return f"{_WHICH}, {_UNTRAINED} {_WHAT}"
        try:
            trained = (self.adapters / TRAINED_ON).read_text(encoding="utf-8").strip().rstrip(".")
        except OSError as error:
            raise ConfigurationError(f"{self.adapters / TRAINED_ON} can't be read: {error.strerror}") from error
        return f"{_WHICH}, trained {trained}. {_WHAT}"


def wiki_settings(place: Place) -> dict[str, Any]:
    """Return the settings of the demo that ``build_wiki`` made in ``place``.

    How long a run may be can be set otherwise in the environment.

    Raises:
        ConfigurationError: it is not made yet.
    """
    if not (place.model / "config.json").is_file() or not (place.index / "manifest.json").is_file():
        raise ConfigurationError(f"the Wikipedia demo is not in {place.data_dir}. `make demo-wiki` sets it up")
    settings: dict[str, Any] = {
        # The model was trained on single questions without instructions, and a small one loses the thread.
        **{"conversation": "last", "system": "ignore"},
        # Three leads have 260 to 560 tokens, and an observation that is cut loses its closing tag.
        **{"max_completion_tokens": 200, "max_run_tokens": 800, "max_observation_tokens": 800},
    }
    chosen = {name: value for name, value in settings.items() if f"SEARCHR1_{name.upper()}" not in os.environ}
    return {
        "model": str(place.model),
        "served_name": "searchr1-wiki",
        "retriever": f"index:{place.index}",
        "kv_cache_gib": 1.0,
        "engine_priority": True,
        "page_about": place.about(),
        "page_examples": EXAMPLES,
        **chosen,
    }
