"""The picture of a run's trace: one bar a span, drawn from what a collector passed on."""

import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
from aiohttp import web

from loadtests.processes import running, searchr1
from loadtests.tracing.collector import running_collector
from searchr1.demo.bundle import CHECKPOINT
from searchr1.engines.base import Chunk, SamplingParams
from searchr1.gateway.tracing import names
from searchr1.tokenizer import Tokenizer
from tests.engines.vllm.fake_vllm import MODEL, serve_fake_vllm
from tests.retrieval.providers.site import serving
from tests.support.otlp_receiver import OtlpReceiver, Received, receiving

QUESTION = "Which currency is used in the country where Timbuktu lies?"
TURNS = (
    "<think> I need the country first. </think> <search> where does Timbuktu lie </search>",
    "<think> It lies in Mali, and now its currency. </think> <search> currency of Mali </search>",
    "<think> Mali uses the West African CFA franc. </think> <answer> West African CFA franc </answer>",
)
PASSAGES = ('"Timbuktu"\nTimbuktu is a city in Mali.', '"Mali"\nMali uses the West African CFA franc.')
PAUSE_S, SEARCH_S = 0.03, 0.12
SENDS_EVERY_MS = "200"
NUM_SPANS = 7
_COLORS = {"POST": "#6b7280", "invoke_agent": "#7c3aed", "chat": "#2563eb", "execute_tool": "#16a34a"}


async def main(collector: Path, port: int, out: Path) -> None:
    """Run a question through a traced gateway and draw its trace."""
    tokenizer = Tokenizer.load(str(CHECKPOINT))
    num_asked = 0

    def model(_: Sequence[int], __: SamplingParams) -> list[Chunk]:
        nonlocal num_asked
        words = TURNS[num_asked].split(" ")
        num_asked += 1
        texts = [word if i == len(words) - 1 else f"{word} " for i, word in enumerate(words)]
        ends = ["stop" if i == len(words) - 1 else None for i in range(len(words))]
        return [Chunk(t, tuple(tokenizer.encode(t)), end) for t, end in zip(texts, ends, strict=True)]  # type: ignore[arg-type]

    async def search(_: web.Request) -> web.Response:
        await asyncio.sleep(SEARCH_S)
        return web.json_response({"result": [[{"document": {"contents": text}, "score": 1.0} for text in PASSAGES]]})

    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(serve_fake_vllm((), encode=tokenizer.encode, model=model))
        engine.max_model_len, engine.pause_s, engine.num_cached_tokens = 8192, PAUSE_S, 64
        searches = await stack.enter_async_context(serving(search))
        receiver = stack.enter_context(receiving())
        endpoint = stack.enter_context(running_collector(collector, port, forward_to=receiver.url))
        environment = {
            "SEARCHR1_MODEL": MODEL,
            "SEARCHR1_SERVED_NAME": "searchr1-7b",
            "SEARCHR1_ENGINE_URL": engine.url,
            "SEARCHR1_TOKENIZER": str(CHECKPOINT),
            "SEARCHR1_RETRIEVER": f"{searches.url}/retrieve",
            "SEARCHR1_PORT": str(port + 2),
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": SENDS_EVERY_MS,
        }
        log = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "gateway.log"
        gateway = running(searchr1("serve"), port + 2, ready="/readyz", log=log, environment=environment)
        url = (await asyncio.to_thread(stack.enter_context, gateway)).url
        async with httpx.AsyncClient(timeout=60) as client:
            run = (await client.post(f"{url}/v1/research", json={"question": QUESTION})).json()
        spans = await _arrived(receiver)
        engines, tools = [h["traceparent"][36:52] for h in engine.headers], searches.requests
        told = engines + [headers["traceparent"][36:52] for _, _, headers, _ in tools]
        print(run["status"], run["answer"])
        for span in spans:
            is_told = "told to the server behind it" if span.span_id in told else ""
            print(span.trace_id, span.span_id, span.parent_id or "-", span.name, span.kind, is_told, span.attributes)
        draw(out, spans)


async def _arrived(receiver: OtlpReceiver) -> list[Received]:
    async with asyncio.timeout(60):
        while len(receiver.spans) < NUM_SPANS:  # noqa: ASYNC110 (the receiver is a thread)
            await asyncio.sleep(0.1)
    return sorted(receiver.spans, key=lambda span: (span.start_ns, -span.end_ns))


def draw(out: Path, spans: Sequence[Received]) -> None:
    """Write the picture of one trace."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    start = min(span.start_ns for span in spans)
    whole_ms = (max(span.end_ns for span in spans) - start) / 1e6
    figure, axes = pyplot.subplots(figsize=(11, 0.55 * len(spans) + 1.1), layout="constrained")
    for row, span in enumerate(spans):
        left, width = (span.start_ns - start) / 1e6, (span.end_ns - span.start_ns) / 1e6
        axes.barh(row, width, left=left, height=0.5, color=_COLORS[span.name.split(" ")[0]])
        text = f"{width:.0f} ms{_told(span)}"
        if width > 0.6 * whole_ms:
            at, side, color = left + width, "right", "white"
        elif left + width > 0.55 * whole_ms:
            at, side, color = left, "right", "black"
        else:
            at, side, color = left + width, "left", "black"
        axes.text(at, row, f" {text} ", va="center", ha=side, color=color, fontsize=8)
    axes.set_yticks(range(len(spans)), [f"{'    ' * _depth(span, spans)}{span.name}" for span in spans])
    for label in axes.get_yticklabels():
        label.set_horizontalalignment("left")
    axes.tick_params(axis="y", pad=165, length=0)
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds")
    axes.spines[["top", "right", "left"]].set_visible(False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    pyplot.close(figure)


def _depth(span: Received, spans: Sequence[Received]) -> int:
    above = next((one for one in spans if one.span_id == span.parent_id), None)
    return 0 if above is None else 1 + _depth(above, spans)


def _told(span: Received) -> str:
    """Return what the picture says of a span beside its time."""
    found = span.attributes
    if span.name.startswith("chat"):
        tokens = f"{found[names.INPUT_TOKENS]} + {found[names.OUTPUT_TOKENS]} tokens"
        return f", turn {found[names.TURN_NUMBER]}: {found[names.TURN_OUTCOME]}, {tokens}"
    if span.name.startswith("execute_tool"):
        passages = f"{found[names.SEARCH_PASSAGES]} passages, cache {found[names.SEARCH_CACHE]}"
        return f", turn {found[names.TURN_NUMBER]}: {passages}"
    if span.name.startswith("invoke_agent"):
        return f", {found[names.RUN_OUTCOME]}: {found[names.RUN_TURNS]} turns, {found[names.RUN_SEARCHES]} searches"
    return f", {found[names.HTTP_STATUS]}"
