"""Fields of both APIs that set up the run: its sampling, its bounds, its searches."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from searchr1.engines.base import Shaping
from searchr1.gateway.access.admission import MAX_SEED, RunOptions
from searchr1.gateway.errors import invalid
from searchr1.gateway.openai.tools import ContextSize
from searchr1.settings import Settings

_MAX_TOP_K = 2**31 - 1


def _if_positive(value: int | None) -> int | None:
    return value if value is not None and value > 0 else None


TokenLimit = Annotated[int | None, AfterValidator(_if_positive)]
"""Tokens at most; clients send 0 or -1 for no limit of theirs."""


class RunFields(BaseModel):
    """The fields. Values by which clients mean "off" are taken as such; null is "not given"."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    temperature: float | None = Field(default=None, ge=0, le=2, description="0 is greedy.")
    top_p: float | None = Field(default=None, ge=0, le=1, description="0 is greedy.")
    top_k: int | None = Field(
        default=None, ge=-1, le=_MAX_TOP_K, description="Tokens to sample from; 0 and -1: all. No number of passages."
    )
    min_p: float | None = Field(default=None, ge=0, le=1, description="Part of the likeliest token's probability.")
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=10, description="1 is none.")
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    seed: int | None = Field(default=None, ge=-MAX_SEED, le=MAX_SEED, description="-1 is none.")
    max_turns: int | None = Field(default=None, ge=1, description="Turns in which the model may search.")
    max_searches: int | None = Field(default=None, ge=0, description="Searches in all; 0 answers closed-book.")
    search_top_k: int | None = Field(
        default=None, ge=1, description="Passages per search; goes before `search_context_size`."
    )
    deadline_s: float | None = Field(default=None, gt=0, description="Seconds after which a run ends.")
    stream_interval_ms: int | None = Field(
        default=None, ge=0, le=1000, description="Milliseconds between two pieces of text; 0: each token as it comes."
    )

    @property
    def shaping(self) -> Shaping:
        """What the engine is told beside temperature, ``top_p`` and seed."""
        return Shaping(
            top_k=max(0, self.top_k or 0),
            min_p=self.min_p or 0.0,
            repetition_penalty=1.0 if self.repetition_penalty is None else self.repetition_penalty,
            frequency_penalty=self.frequency_penalty or 0.0,
            presence_penalty=self.presence_penalty or 0.0,
        )

    def options(
        self,
        settings: Settings,
        *,
        max_tokens: int | None,
        max_searches: int | None,
        context_size: ContextSize | None,
        is_cache_only: bool,
    ) -> RunOptions:
        """Return the run's options in the native form. A token limit above the operator's is cut.

        Raises:
            ApiError: more passages than the operator allows.
        """
        is_greedy = self.top_p == 0
        return RunOptions(
            max_turns=self.max_turns,
            max_searches=max_searches,
            max_tokens=None if max_tokens is None else min(max_tokens, settings.max_run_tokens),
            top_k=self._passages(settings, context_size),
            temperature=0.0 if is_greedy else self.temperature,
            top_p=None if is_greedy else self.top_p,
            seed=None if self.seed is None or self.seed == -1 else self.seed % (MAX_SEED + 1),
            deadline_s=self.deadline_s,
            stream_interval_ms=self.stream_interval_ms,
            cache="only" if is_cache_only else "default",
        )

    def _passages(self, settings: Settings, context_size: ContextSize | None) -> int | None:
        """Return the passages per search; None where the request does not say."""
        if self.search_top_k is None:
            sizes = {None: None, "low": 1, "medium": settings.top_k, "high": settings.max_top_k}
            size = sizes[context_size]
            return None if size is None else min(size, settings.max_top_k)
        if self.search_top_k > settings.max_top_k:
            message = f"'search_top_k' is {self.search_top_k}; this server allows at most {settings.max_top_k}."
            raise invalid(message, param="search_top_k", code="above_maximum")
        return self.search_top_k
