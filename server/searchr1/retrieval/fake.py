"""A retriever for tests, whose answers are written down beforehand."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from searchr1.loop.types import Passage
from searchr1.retrieval.base import Found, SearchFailed, SearchOutcome

Answer = SearchOutcome | Sequence[Passage]


class FakeRetriever:
    """A ``Retriever`` that looks queries up in a mapping (unknown ones find nothing) or asks ``answers(query, k)``.

    ``delay_s`` makes every search take that long. ``queries`` lists what was asked, in order.
    """

    def __init__(self, answers: Mapping[str, Answer] | Callable[[str, int], Answer], *, delay_s: float = 0) -> None:
        self._answers, self._delay_s = answers, delay_s
        self.queries: list[str] = []

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        """See ``Retriever.search``."""
        self.queries.append(query)
        if self._delay_s >= deadline_s:
            await asyncio.sleep(deadline_s)
            return SearchFailed("timeout", f"the fake retriever did not answer within {deadline_s:g} s")
        await asyncio.sleep(self._delay_s)
        answer = self._answers(query, k) if callable(self._answers) else self._answers.get(query, ())
        if isinstance(answer, SearchFailed):
            return answer
        passages, cache = (answer.passages, answer.cache) if isinstance(answer, Found) else (tuple(answer), "miss")
        return Found(passages[: max(k, 0)], cache)
