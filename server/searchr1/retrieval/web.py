"""What web providers share: keys that can be sent, and a result of any of them as a passage in the trained form."""

import html
import re
from collections.abc import Iterable
from dataclasses import dataclass

from searchr1.errors import ConfigurationError
from searchr1.loop.types import Passage
from searchr1.retrieval.documents import passage_of
from searchr1.retrieval.rest import Reply, RestError

_MARKUP = re.compile(r"</?[a-zA-Z][^<>]{0,200}>")
_SENTENCE_END = re.compile(r"[.!?][\"'”’)\]]*(?=\s|$)|[。！？][」』”’）]*")
_READ_AHEAD = 4
"""Characters that are read for one that is kept: markup and white space are dropped."""


@dataclass(frozen=True, slots=True)
class WebResult:
    """One result as a provider words it. ``markup`` tells that title and text are HTML."""

    title: str
    url: str
    text: str
    score: float | None = None
    markup: bool = False


def passages_from(results: Iterable[WebResult], k: int, max_chars: int) -> tuple[Passage, ...]:
    """The first ``k`` results with a text or a title, one per URL, their texts cut to ``max_chars``."""
    passages: dict[str, Passage] = {}
    for result in results:
        title, text = result.title[:1000], result.text[: _READ_AHEAD * max_chars]
        if result.markup:
            title, text = plain_text(title), plain_text(text)
        document = {"title": title, "text": trim(" ".join(text.split()), max_chars), "url": result.url}
        passage = passage_of(document, "", result.score)
        if passage is not None and (title.strip() or text.strip()):
            passages.setdefault(passage.url or passage.contents, passage)
        if len(passages) == k:
            break
    return tuple(passages.values())


def usable_key(api_key: str, label: str) -> str:
    """The key without the white space around it, which secrets made by ``echo`` end in.

    Raises ``ConfigurationError`` for a key that is empty or no header can hold: the HTTP library would refuse it when
    it is sent, in an error that quotes it.
    """
    key = api_key.strip()
    if not key:
        raise ConfigurationError(f"{label} needs a key")
    if not (key.isascii() and key.isprintable()):
        raise ConfigurationError(f"the key of {label} cannot be sent: it must be printable ASCII")
    return key


def plain_text(markup: str) -> str:
    """HTML without its tags, entities resolved."""
    return html.unescape(_MARKUP.sub("", markup))


def trim(text: str, max_chars: int) -> str:
    """The first sentences of ``text`` that fit into ``max_chars``; the first words where not even one sentence does."""
    if len(text) <= max_chars:
        return text
    head = text[:max_chars]
    # One character more tells whether a stop at the very end ends a sentence or stands within a number.
    ends = [match.end() for match in _SENTENCE_END.finditer(text[: max_chars + 1]) if match.end() <= max_chars]
    if ends:
        return head[: ends[-1]]
    words = head.rpartition(" ")[0]
    return words or head


def object_of(reply: Reply, hint: str = "") -> dict[str, object]:
    """The JSON object of a successful reply. Raises ``RestError``, with ``hint`` where the provider refuses us.

    What a provider says in an error is left out: some repeat the key.
    """
    if not reply.is_success:
        raise reply.error(hint if 400 <= reply.status < 500 else "")
    if not isinstance(reply.body, dict):
        raise RestError(
            "bad_response", f"answered with something that is not a JSON object ({reply.content_type[:80]})"
        )
    return reply.body


def objects(value: object, name: str) -> list[dict[str, object]]:
    """The objects in the list ``value``; other things are passed over. Raises ``RestError`` for what is no list."""
    if not isinstance(value, list):
        raise RestError("bad_response", f'answered without a list "{name}"')
    return [item for item in value if isinstance(item, dict)]


def text_of(value: object) -> str:
    """A string as it is, anything else as none."""
    return value if isinstance(value, str) else ""
