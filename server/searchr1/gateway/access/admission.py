"""Admission: a request's question and options, held against the operator's bounds."""

from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from searchr1.driver import DriveOptions
from searchr1.engines.base import UNSHAPED, UNWATCHED_INTERVAL, Shaping
from searchr1.errors import ConfigurationError
from searchr1.gateway.access.pseudonyms import Pseudonyms
from searchr1.gateway.access.stored_plan import StoredPlan
from searchr1.gateway.errors import invalid
from searchr1.identity import Caller
from searchr1.loop.machine import Rollout
from searchr1.loop.types import Limits
from searchr1.pacing import Pacing
from searchr1.printable import has_half_pair
from searchr1.retrieval.base import Retriever
from searchr1.retrieval.frozen import RecordedSearches
from searchr1.retrieval.layer import SearchLayer
from searchr1.rollout import check_profile, render_prompt, start_rollout
from searchr1.settings import Settings
from searchr1.tokenizer import ReservedTextError, Tokenizer

MAX_SEED = 2**63 - 1
LEAST_S = 0.001
"""Deadline of a run whose time is up before it starts: it ends as ``deadline``."""

Number = TypeVar("Number", int, float)


class RunOptions(BaseModel):
    """Options of a run that a request may set; each is bounded by the operator's own setting."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    max_turns: int | None = Field(default=None, ge=1, description="Turns in which the model may search.")
    max_searches: int | None = Field(default=None, ge=0, description="Searches in all; 0 answers closed-book.")
    max_tokens: int | None = Field(
        default=None, ge=1, description="Tokens that the model may generate in the whole run."
    )
    top_k: int | None = Field(default=None, ge=1, description="Passages per search.")
    temperature: float | None = Field(default=None, ge=0, le=2, description="0 is greedy.")
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    deadline_s: float | None = Field(default=None, gt=0, description="Seconds after which the run ends as `deadline`.")
    stream_interval_ms: int | None = Field(
        default=None,
        ge=0,
        le=1000,
        description="Milliseconds between two pieces of a stream's text; 0 sends each token as it comes.",
    )
    logprobs: bool = Field(default=False, description="Record the sampled tokens' logprobs in the trajectory.")
    cache: Literal["default", "only"] = Field(
        default="default", description="`only` answers searches from the cache alone and calls no provider."
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """An admitted run, ready to drive."""

    question: str
    rollout: Rollout
    options: DriveOptions
    retriever: Retriever
    """The caller's view of the search layer."""
    caller: Caller
    model: str
    """Name of the served model that it is for."""
    cache_only: bool = False
    """Whether ``retriever`` answers from the cache alone."""
    record: RecordedSearches | None = None
    """What ``retriever`` answers from, where the run repeats another one."""

    @property
    def num_ids(self) -> int:
        """Tokens of the prompt, and of what came after it in a run that is taken over."""
        return len(self.rollout.ids)


class Admission:
    """The admission of requests for one model: they become plans, or an ``ApiError`` says what to change."""

    def __init__(self, settings: Settings, tokenizer: Tokenizer, search: SearchLayer) -> None:
        self._settings = settings
        self._tokenizer = tokenizer
        self._search = search
        self._model = settings.public_name
        self._profile = settings.loop_profile()
        check_profile(self._profile, tokenizer)
        secret = settings.engine_session_secret
        self._pseudonyms = Pseudonyms(secret.get_secret_value() if secret else None)
        self._pacing = Pacing(settings.stream_interval_ms / 1000)
        self._unnarrowed = settings.limits()

    @property
    def reserved_texts(self) -> tuple[str, ...]:
        """The texts of special tokens, which no question may hold."""
        return self._tokenizer.reserved

    def cache_salt(self, caller: Caller) -> str | None:
        """Return the salt of a caller's cached prefixes; None where the engine's cache is not kept apart."""
        return self._pseudonyms.cache_salt(caller) if self._settings.salts_caches else None

    def fits(self, question: str) -> bool:
        """Return whether ``question`` is short enough; one that ``plan`` refuses for another reason is."""
        if len(question.strip()) > self._settings.max_question_chars:
            return False
        if has_half_pair(question):
            return True
        try:
            prompt = render_prompt(self._profile.prompt(question), self._tokenizer, self._profile)
        except ReservedTextError:
            return True
        return len(self._tokenizer.encode_prompt(prompt)) <= self._settings.max_prompt_tokens

    def plan(
        self,
        question: str,
        options: RunOptions,
        *,
        caller: Caller,
        run_id: str,
        stream: bool,
        param: str = "question",
        shaping: Shaping = UNSHAPED,
        spent_s: float = 0.0,
    ) -> Plan:
        """Check a question and its options and set up the run.

        Without ``stream`` text may come in larger pieces. ``shaping`` is for the engine. ``param`` names the part of
        the request that the question came in, for errors. ``spent_s`` seconds of the run's deadline have passed
        already.

        Raises:
            ApiError: the question or an option is refused; the message says what to change.
        """
        question = self._checked_question(question, param)
        limits = self._limits(options)
        try:
            rollout = start_rollout(question, self._tokenizer, profile=self._profile, limits=limits)
        except ReservedTextError as error:
            raise invalid(f"The question can't be asked as it stands: {error}.", param=param) from error
        if (num_tokens := len(rollout.segments[0].ids)) > self._settings.max_prompt_tokens:
            raise invalid(
                f"The question makes a prompt of {num_tokens} tokens; at most {self._settings.max_prompt_tokens} fit. "
                "Shorten it.",
                param=param,
                code="context_length_exceeded",
            )
        retriever = self._search.view(caller, cache_only=options.cache == "only")
        drive_options = self._drive_options(options, caller, run_id, stream=stream, shaping=shaping)
        if spent_s and drive_options.deadline_s is not None:
            drive_options = replace(drive_options, deadline_s=max(drive_options.deadline_s - spent_s, LEAST_S))
        return Plan(
            question, rollout, drive_options, retriever, caller, self._model, cache_only=options.cache == "only"
        )

    def taken_over(self, plan: StoredPlan, run_id: str, *, left_s: float | None) -> Plan:
        """Return the plan of a run that another gateway admitted, at its start, with ``left_s`` of its deadline left.

        Raises:
            ConfigurationError: this server has another tokenizer, or not the run's profile.
        """
        if self._profile.name != plan.profile:
            raise ConfigurationError(f"the run has the profile {plan.profile!r}")
        if self._tokenizer.encode_prompt(plan.prompt) != list(plan.prompt_ids):
            raise ConfigurationError("the run's prompt has other ids here")
        rollout = Rollout(
            prompt=plan.prompt,
            prompt_ids=plan.prompt_ids,
            encode=self._tokenizer.encode,
            limits=plan.limits,
            profile=self._profile,
            spell=self._tokenizer.decode,
        )
        caller = plan.caller
        retriever = self._search.view(caller, cache_only=plan.cache_only)
        if plan.record is not None:
            retriever = plan.record.retriever(retriever)
        interval_s = plan.interval_s
        options = DriveOptions(
            session=self._pseudonyms.session(caller, run_id),
            cache_salt=self._pseudonyms.cache_salt(caller) if self._settings.salts_caches else None,
            temperature=plan.temperature,
            top_p=plan.top_p,
            seed=plan.seed,
            shaping=plan.shaping,
            top_k=plan.top_k,
            search_timeout_s=self._settings.search_timeout_s,
            deadline_s=left_s,
            logprobs=plan.logprobs,
            stream_interval=plan.stream_interval,
            pacing=self._pacing if interval_s is None else Pacing(interval_s, is_fixed=True),
            priority_by_turn=self._settings.engine_priority,
        )
        return Plan(plan.question, rollout, options, retriever, caller, self._model, plan.cache_only, plan.record)

    def _checked_question(self, question: str, param: str) -> str:
        if len(question) > self._settings.max_question_chars:
            raise invalid(
                f"The question has {len(question)} characters; at most {self._settings.max_question_chars} are taken.",
                param=param,
                code="string_too_long",
            )
        if "\x00" in question:
            raise invalid("The question contains a NUL character; remove it.", param=param)
        if has_half_pair(question):
            raise invalid("The question contains half of a surrogate pair; send valid Unicode.", param=param)
        if not question.strip():
            raise invalid("The question is empty; send some text.", param=param)
        return question.strip()

    def _limits(self, options: RunOptions) -> Limits:
        if (options.max_turns, options.max_searches, options.max_tokens) == (None, None, None):
            return self._unnarrowed
        max_turns = _below(options.max_turns, self._settings.max_turns, "max_turns")
        if options.max_searches is not None:
            _below(options.max_searches, max_turns, "max_searches")
        return replace(
            self._unnarrowed,
            max_turns=max_turns,
            max_searches=options.max_searches,
            max_run_tokens=_below(options.max_tokens, self._settings.max_run_tokens, "max_tokens"),
        )

    def _drive_options(
        self, options: RunOptions, caller: Caller, run_id: str, *, stream: bool, shaping: Shaping
    ) -> DriveOptions:
        settings = self._settings
        deadline_s = settings.deadline_s
        if options.deadline_s is not None:
            deadline_s = _below(options.deadline_s, settings.max_deadline_s, "deadline_s")
        top_k = settings.top_k if options.top_k is None else _below(options.top_k, settings.max_top_k, "top_k")
        return DriveOptions(
            session=self._pseudonyms.session(caller, run_id),
            cache_salt=self.cache_salt(caller),
            temperature=settings.temperature if options.temperature is None else options.temperature,
            top_p=1.0 if options.top_p is None else options.top_p,
            seed=options.seed,
            shaping=shaping,
            top_k=top_k,
            search_timeout_s=settings.search_timeout_s,
            deadline_s=deadline_s,
            logprobs=options.logprobs,
            stream_interval=1 if stream else UNWATCHED_INTERVAL,
            pacing=self._pacing_of(options),
            priority_by_turn=settings.engine_priority,
        )

    def _pacing_of(self, options: RunOptions) -> Pacing:
        if options.stream_interval_ms is None:
            return self._pacing
        return Pacing(options.stream_interval_ms / 1000, is_fixed=True)


def _below(wanted: Number | None, maximum: Number, name: str) -> Number:
    """Return the wanted number, or the maximum where none is; a number above it is refused rather than cut."""
    if wanted is None:
        return maximum
    if wanted > maximum:
        raise invalid(f"'{name}' is {wanted}; this server allows at most {maximum}.", param=name, code="above_maximum")
    return wanted
