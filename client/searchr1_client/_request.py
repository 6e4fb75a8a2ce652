"""What a run may be asked for, and the HTTP request that asks it."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of one run. None leaves a choice to the server."""

    model: str | None = None
    max_turns: int | None = None
    max_searches: int | None = None
    """0 is closed book: the model answers from its own knowledge."""
    max_tokens: int | None = None
    """Sampled tokens of the whole run."""
    top_k: int | None = None
    """Passages per search."""
    temperature: float | None = None
    """0 is greedy."""
    top_p: float | None = None
    seed: int | None = None
    deadline_s: float | None = None
    cache: str | None = None
    """``only`` answers searches from the server's cache alone."""

    def given(self) -> dict[str, Any]:
        """The options that were chosen, as JSON values."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def body(self, question: str, *, stream: bool) -> dict[str, Any]:
        """The JSON body of ``POST /v1/research``."""
        return {"question": question, "stream": stream, **self.given()}


def research_url(base_url: str) -> str:
    """The address of ``/v1/research`` under a server's base address, with or without its ``/v1``."""
    return base_url.rstrip("/").removesuffix("/v1") + "/v1/research"


def auth_headers(api_key: str | None) -> dict[str, str]:
    """The headers that show ``api_key``; none without one."""
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}
