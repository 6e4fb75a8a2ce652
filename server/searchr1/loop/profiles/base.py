"""The profile: everything that one family of checkpoints was trained to write and to read, in one value.

A new family is one file in this folder that ends in ``register(Profile(…))``; ``search_r1.py`` is the model to copy.
Settings and records then know it by its name.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from searchr1.loop.tags import Tags
from searchr1.loop.types import ActionKind, Passage


@dataclass(frozen=True, slots=True)
class Profile:
    r"""Tags, texts and reading rules of one family of checkpoints. All texts are data formats, byte for byte.

    >>> from searchr1.loop.tags import Pair
    >>> tags = Tags(search=Pair.named("find"), observation=Pair.named("found"), answer=Pair.named("say"))
    >>> profile = Profile(
    ...     name="example",
    ...     tags=tags,
    ...     prompt=lambda question: f"Find out: {question}\n",
    ...     observation=lambda passages: "".join(f"<found>{p.text}</found>\n" for p in passages),
    ...     action=tags.first_action,
    ... )
    >>> profile.action("It may be here: <find> Mali </find>")
    ('search', 'Mali')
    """

    name: str
    """Its name in settings and records."""
    tags: Tags
    prompt: Callable[[str], str]
    """The user message for a question."""
    observation: Callable[[Sequence[Passage]], str]
    """The text put in after a search. A search that failed or found nothing has no passages: an empty result."""
    action: Callable[[str], tuple[ActionKind, str]]
    """The action that a turn's text asks for, and its stripped query or answer, taken out of whatever wraps it."""
    retry: str | None = None
    """The text put in after a turn without an action. None: such a turn ends the rollout."""
    system: str | None = None
    """The system message before the user's, where the family has one of its own."""
    chat: bool = True
    """True if the checkpoint's chat template, where it has one, wraps the prompt."""

    def messages(self, question: str) -> list[dict[str, str]]:
        """Return the prompt as chat messages, each with ``role`` and ``content``."""
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*system, {"role": "user", "content": self.prompt(question)}]


_BRACES = re.compile(r"\\boxed\{|[{}]")


def last_boxed(text: str) -> str | None:
    r"""Return the content of the last ``\boxed{…}`` that is closed, braces inside it balanced; None if there is none.

    >>> last_boxed(r"\boxed{a} or \boxed{\text{b} {c}}")
    '\\text{b} {c}'
    """
    starts: list[int | None] = []
    found: tuple[int, int] | None = None
    for match in _BRACES.finditer(text):
        if match[0] != "}":
            starts.append(match.end() if match[0] != "{" else None)
        elif starts and (start := starts.pop()) is not None and (found is None or start > found[0]):
            found = (start, match.start())
    return None if found is None else text[found[0] : found[1]]
