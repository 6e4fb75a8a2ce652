"""Sources as OpenAI's clients know them: by a URL, whether they have one or not."""

from urllib.parse import quote

from searchr1_client.events import Citation, WirePassage


def url_of(source: Citation | WirePassage) -> str:
    """Return the URL of a source; one without is named by a URN of its title, or of its number where it has none.

    Clients require the field and tell sources apart by it: of several with an empty one they show the first, or none.
    """
    return source.url or f"urn:passage:{quote(source.title or str(source.index), safe='')}"
