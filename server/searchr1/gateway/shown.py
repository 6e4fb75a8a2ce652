"""Passages as users are shown them, whichever way they ask: by a run's events, or by a search of ``/mcp``."""

from searchr1.loop.types import Passage
from searchr1.printable import printable


def title_and_text(passage: Passage) -> tuple[str, str]:
    """Return a passage's title and text without what could steer a terminal or turn the reading direction.

    A single line without the quotes of a title is a text to users.
    """
    title, text = printable(passage.title).strip(), printable(passage.text)
    is_quoted = len(title) > 1 and title[0] == title[-1] == '"'
    if text.strip() or is_quoted:
        return title.strip('"').strip(), text
    return "", title
