"""Upstream's way to answer, as its ``infer.py`` has it: one question after the other, ``transformers.generate``.

    python -m loadtests.agents.infer --checkpoint DIR --script FILE --trace FILE --retriever URL

The whole text is tokenized and computed anew each turn; generation ends at the closing search tag, or at the end of the
text. What the model writes is fixed as in the other arms. A line is printed for each question as it ends.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.agents.playing import Played
from loadtests.agents.script import Script
from loadtests.agents.trace import AgentRun, Trace
from searchr1.loop.profiles.search_r1 import SEARCH_R1, listed
from searchr1.loop.types import Passage

_MAX_TURNS = 20


@dataclass
class Way:
    """A model in this process, and the questions that it is asked."""

    model: Any
    tokenizer: Any
    script: Script
    retriever_url: str

    def answer(self, run: AgentRun) -> str:
        """Return what is written last."""
        prompt = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": SEARCH_R1.prompt(run.question)}], add_generation_prompt=True, tokenize=False
        )
        for _ in range(_MAX_TURNS):
            text, has_ended = self.generate(prompt)
            if has_ended:
                return text
            found = listed(self.search(SEARCH_R1.action(text)[1]))
            prompt += f"\n\n{text}<information>{found}</information>\n\n"
        raise RuntimeError(f"run {run.run} did not end in {_MAX_TURNS} turns")

    def generate(self, prompt: str) -> tuple[str, bool]:
        """Return the next turn's text, and whether the text ended by itself."""
        import torch
        from transformers import LogitsProcessorList, StoppingCriteriaList

        ids = self.tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids
        num_ids = ids.shape[1]
        script = self.script.ids_after(prompt) or ()
        end = len(script) - 1 if script[-1:] == [self.script.eos_id] else len(script)

        def forced(ids: Any, scores: Any) -> Any:
            written = ids.shape[1] - num_ids
            scores[:, script[written] if written < end else self.script.eos_id] = 1e9
            return scores

        def closed(ids: Any, scores: Any, **_: object) -> Any:
            text = self.tokenizer.decode(ids[0, max(num_ids, ids.shape[1] - 8) :])
            return torch.tensor([text.endswith("</search>")])

        with torch.inference_mode():
            written = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=1024,
                logits_processor=LogitsProcessorList([forced]),
                stopping_criteria=StoppingCriteriaList([closed]),
                pad_token_id=self.tokenizer.eos_token_id,
                do_sample=False,
            )[0, num_ids:]
        return self.tokenizer.decode(written, skip_special_tokens=True), int(written[-1]) == self.script.eos_id

    def search(self, query: str) -> list[Passage]:
        """Return what a search finds."""
        body = json.dumps({"queries": [query], "topk": 3, "return_scores": True}).encode()
        request = urllib.request.Request(self.retriever_url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            found = json.load(response)["result"][0]
        return [Passage.from_contents(one["document"]["contents"]) for one in found]


async def asked_one_by_one(
    checkpoint: Path, script: Path, trace: Trace, retriever_url: str, at_most_s: float
) -> list[Played]:
    """Ask all questions in a process of its own; times count from when its model is loaded.

    Questions that are not answered after ``at_most_s`` are lost.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        trace.write(file)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "loadtests.agents.infer", "--checkpoint", str(checkpoint)),
            *("--script", str(script), "--trace", str(file), "--retriever", retriever_url),
            stdout=asyncio.subprocess.PIPE,
        )
        played: list[Played] = []
        assert process.stdout is not None
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(at_most_s):
                    async for line in process.stdout:
                        played.append(Played(**json.loads(line)))
                        print(f"  {played[-1].ended_s:5.0f} s: {len(played)} of {len(trace.runs)} runs", flush=True)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    ended = {one.run for one in played}
    told = f"had not ended after {at_most_s:g} s"
    return played + [Played(run.run, 0.0, at_most_s, "lost", told) for run in trace.runs if run.run not in ended]


def main() -> None:
    """Load the model, then ask."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--script", type=Path, required=True)
    parser.add_argument("--trace", type=Path, required=True)
    parser.add_argument("--retriever", required=True)
    args = parser.parse_args()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(args.checkpoint, dtype=torch.bfloat16)
    way = Way(model, AutoTokenizer.from_pretrained(args.checkpoint), Script.read(args.script), args.retriever)
    began = time.perf_counter()
    for run in Trace.read(args.trace).runs:
        text = way.answer(run)
        fate, told = ("ended", "") if SEARCH_R1.action(text)[1] == run.answer else ("wrong", text[-100:])
        record = {"run": run.run, "came_s": 0.0, "ended_s": time.perf_counter() - began, "fate": fate, "told": told}
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
