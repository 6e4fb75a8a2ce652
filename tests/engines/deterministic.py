"""An engine that knows one text for each prompt, so that ids and text of a broken completion can be compared.

It samples, stops and detokenizes as vLLM does, its repetition of a prompt that ends inside a character included.
"""

from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
from tokenizers import Tokenizer as RawTokenizer
from tokenizers.decoders import DecodeStream

from searchr1.demo.bundle import CHECKPOINT
from searchr1.engines.base import Chunk, SamplingParams
from searchr1.errors import EngineError
from searchr1.loop.types import FinishReason, TokenIds

RAW = RawTokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
STOPS = ("</search>", "</answer>")


def encode(text: str) -> list[int]:
    ids: list[int] = RAW.encode(text, add_special_tokens=False).ids
    return ids


def decode(ids: TokenIds) -> str:
    text: str = RAW.decode(list(ids), skip_special_tokens=True)
    return text


def sampled(prompt_ids: Sequence[int], continuation: Sequence[int], params: SamplingParams) -> list[Chunk]:
    """The chunks of one completion that samples ``continuation`` after ``prompt_ids``."""
    stream = DecodeStream(ids=list(prompt_ids), skip_special_tokens=True)
    text, told, chunks, ids, finish = "", 0, list[Chunk](), list[int](), None
    for number, token in enumerate(continuation, start=1):
        text += stream.step(RAW, token) or ""
        ids.append(token)
        ends = [text.index(stop) + len(stop) for stop in params.stop if stop in text]
        if ends:
            text, finish = text[: min(ends)], "stop"
        elif number in (params.max_tokens, len(continuation)):
            finish = "length" if number == params.max_tokens else "stop"
        if finish or len(ids) == params.stream_interval:
            logprobs = tuple(-float(i) for i in ids) if params.logprobs else None
            reason: FinishReason | None = "stop" if finish == "stop" else "length" if finish else None
            chunks.append(Chunk(text[told:], tuple(ids), reason, logprobs, 1 if finish else None))
            told, ids = len(text), []
        if finish:
            break
    return chunks


@dataclass
class OneTextEngine:
    """Continues ``prompt`` with ``text``, whatever part of it the prompt holds already.

    ``faults`` says for each request, in turn, after how many chunks it fails and with what; then there are no more.
    """

    prompt: TokenIds
    text: str
    faults: Iterator[tuple[int, EngineError]] = field(default_factory=lambda: iter(()))
    abort: bool = False
    requests: list[tuple[TokenIds, SamplingParams]] = field(default_factory=list)
    num_open: int = 0

    async def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        self.requests.append((prompt_ids, params))
        whole = encode(self.text)
        done = prompt_ids[len(self.prompt) :]
        assert prompt_ids[: len(self.prompt)] == self.prompt
        assert list(done) == whole[: len(done)], "ids that were not sampled"
        chunks = sampled(prompt_ids, whole[len(done) :], params)
        fault = next(self.faults, None)
        self.num_open += 1
        try:
            for number, chunk in enumerate(chunks):
                if fault is not None and number == fault[0]:
                    if self.abort:
                        yield msgspec.structs.replace(chunk, finish="abort")
                        return
                    raise fault[1]
                yield chunk
            if fault is not None:
                raise fault[1]
        finally:
            self.num_open -= 1
