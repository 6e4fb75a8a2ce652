"""The native API through this project's own SDK (whole, stream)."""

from searchr1_client import (
    APIStatusError,
    Run,
    RunFailed,
    SearchR1,
    SearchStarted,
    StreamEndedError,
    ThinkDelta,
)
from searchr1_client.events import AnswerDelta
from tests.clients.programs.report import Job, Shown, leave, main


def show(job: Job, shown: Shown) -> None:
    """Ask as the mode says."""
    with SearchR1(base_url=job.url.removesuffix("/v1"), max_retries=0) as client:
        if job.mode == "whole":
            run = client.research.create(job.question)
            shown.text = run.answer or ""
            shown.reasoning = "".join(step.reasoning for step in run.steps)
            shown.searches = [step.query for step in run.steps if step.query is not None]
            show_run(run, shown)
            return
        with client.research.stream(job.question) as stream:
            for event in stream:
                match event:
                    case ThinkDelta():
                        shown.add_reasoning(event.text)
                    case SearchStarted():
                        shown.searches.append(event.query)
                    case AnswerDelta():
                        shown.add_text(event.text)
                    case RunFailed():
                        shown.error = {"kind": event.type, "status": None, "message": event.error.message}
                if job.mode == "leave" and shown.reasoning:
                    break
            if job.mode != "leave":
                show_run(stream.get_final_run(), shown)
        if job.mode == "leave":
            leave()


def show_run(run: Run, shown: Shown) -> None:
    """Show the parts of a whole run beside its text."""
    shown.citations = [{"title": one.title, "url": one.url or ""} for one in run.citations]
    found = [passage for step in run.steps for passage in step.passages]
    shown.sources = [{"title": passage.title, "url": passage.url or ""} for passage in found]
    shown.usage = {
        "input": run.usage.prompt_tokens + run.usage.observation_tokens,
        "output": run.usage.completion_tokens,
        "reasoning": run.usage.reasoning_tokens,
        "searches": run.usage.searches,
    }


if __name__ == "__main__":
    main(show, (APIStatusError, StreamEndedError))
