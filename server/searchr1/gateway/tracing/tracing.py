"""The traces of a gateway: a span for each request that begins runs, for each run, and for each rewriting."""

from collections.abc import Mapping
from contextvars import Token
from functools import partial

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, SpanKind
from opentelemetry.util.types import AttributeValue

from searchr1.driver import DriveStats
from searchr1.engines.base import Replicated, ServedEngine
from searchr1.engines.vllm.http import VllmHttpEngine
from searchr1.gateway.access.admission import Plan
from searchr1.gateway.served_model import ServedModel
from searchr1.gateway.tracing import names
from searchr1.gateway.tracing.run import Replica, RunTrace
from searchr1.gateway.tracing.spans import Spans, fail, headers_of, served
from searchr1.trace_context import TRACE_HEADERS


class Tracing:
    """The traces of one process.

    Args:
        provider: what makes the spans and delivers them.
        content: whether questions, queries, passages and texts of the model are recorded.
    """

    def __init__(self, provider: TracerProvider, *, content: bool) -> None:
        self._spans, self._content = Spans(provider), content
        self._engines: dict[str, tuple[dict[str, AttributeValue], SpanKind]] = {}

    def request(self, path: str, *, scheme: str, request_id: str) -> "RequestSpan":
        """Begin the span of a POST, below the client's own; what the request does is below it from here on."""
        attributes = {
            names.HTTP_METHOD: "POST",
            names.HTTP_ROUTE: path,
            names.URL_PATH: path,
            names.URL_SCHEME: scheme,
            names.REQUEST_ID: request_id,
        }
        span = self._spans.start(f"POST {path}", served(), attributes, SpanKind.SERVER)
        TRACE_HEADERS.set(headers_of(span))
        return RequestSpan(span)

    def run(
        self, plan: Plan, model: ServedModel, stats: DriveStats, *, run_id: str, num_takeovers: int = 0
    ) -> RunTrace | None:
        """Begin the trace of a run, below what is served here; None where it is not recorded.

        ``num_takeovers`` counts the gateways that it has lost, and not those that handed it over.
        """
        engine, chat_kind = self._engine(model)
        attributes: dict[str, AttributeValue] = {
            names.OPERATION: names.INVOKE_AGENT,
            names.AGENT: model.settings.profile,
            **engine,
            names.RUN_ID: run_id,
        }
        if num_takeovers:
            attributes[names.RUN_TAKEOVERS] = num_takeovers
        name = f"{names.INVOKE_AGENT} {model.settings.profile}"
        span = self._spans.start(name, served(), attributes, SpanKind.INTERNAL)
        if not span.is_recording():
            return None
        return RunTrace(
            self._spans,
            span,
            plan,
            stats,
            engine=engine,
            replica=_replica_of(model.engine, plan.options.session),
            chat_kind=chat_kind,
            content=self._content,
        )

    def rewriting(self, model: ServedModel) -> "RewriteSpan":
        """Begin the span of a rewriting; see ``RewriteSpan``."""
        if model.settings.rewriter == "rules":
            span = self._spans.start("rewrite", served(), {}, SpanKind.INTERNAL)
            return RewriteSpan(span)
        engine, kind = self._engine(model)
        writer = model.name
        if model.settings.rewrite_url is not None:
            writer, kind = model.settings.rewrite_model or "", SpanKind.CLIENT
            engine = {names.PROVIDER: "openai", names.MODEL: writer}
        attributes = {names.OPERATION: names.CHAT, **engine}
        return RewriteSpan(self._spans.start(f"{names.CHAT} {writer}", served(), attributes, kind))

    def _engine(self, model: ServedModel) -> tuple[Mapping[str, AttributeValue], SpanKind]:
        """Return what spans say of a model's engine, and the kind of the spans of its completions."""
        if model.name not in self._engines:
            config = model.settings.engine_config()
            provider = config.kind.partition("-")[0]
            kind = SpanKind.CLIENT if config.urls else SpanKind.INTERNAL
            self._engines[model.name] = ({names.PROVIDER: provider, names.MODEL: model.name}, kind)
        return self._engines[model.name]


def _replica_of(engine: ServedEngine, session: str) -> Replica:
    if isinstance(engine, Replicated):
        return partial(engine.replica_of, session)
    url = engine.base_url if isinstance(engine, VllmHttpEngine) else None
    return lambda: url


class RequestSpan:
    """The span of one request."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def ended(self, status: int | None, error: BaseException | None = None) -> None:
        """Take the end of the answer: its HTTP status where one was sent, and what broke it off."""
        if status is not None:
            self._span.set_attribute(names.HTTP_STATUS, status)
        if error is not None:
            fail(self._span, type(error).__name__)
        elif status is not None and status >= 500:
            fail(self._span, str(status))
        self._span.end()


class RewriteSpan:
    """The span of one rewriting: what is sent while it lasts is below it."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._before: Token[Mapping[str, str]] = TRACE_HEADERS.set(headers_of(span))

    def ended(self, outcome: str, error: BaseException | None = None) -> None:
        """Take the end, in the task of the beginning: ``rewritten``, ``kept``, ``failed`` or ``cancelled``."""
        TRACE_HEADERS.reset(self._before)
        self._span.set_attribute(names.REWRITE_OUTCOME, outcome)
        if error is not None:
            fail(self._span, type(error).__name__)
        self._span.end()
