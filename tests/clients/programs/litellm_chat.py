"""Chat Completions through ``litellm`` (whole, stream)."""

from typing import Any

import litellm  # type: ignore[import-not-found]  # in .venv-clients, not beside the type checker

from tests.clients.programs.report import Job, Shown, leave, main

litellm.suppress_debug_info = True


def show(job: Job, shown: Shown) -> None:
    """Ask as the mode says."""
    asked = {
        "model": f"openai/{job.model}",
        "api_base": job.url,
        "api_key": "none",
        "messages": [{"role": "user", "content": job.question}],
        "max_retries": 0,
    }
    if job.mode == "whole":
        completion = litellm.completion(**asked)
        message = completion.choices[0].message
        shown.text, shown.reasoning = message.content, message.reasoning_content
        show_annotations(message.annotations, shown)
        show_sources(completion, shown)
        show_usage(completion.usage, shown)
        return
    stream = litellm.completion(**asked, stream=True, stream_options={"include_usage": True})
    for chunk in stream:
        show_sources(chunk, shown)
        if getattr(chunk, "usage", None) is not None:
            show_usage(chunk.usage, shown)
        for choice in chunk.choices:
            shown.add_text(choice.delta.content)
            shown.add_reasoning(getattr(choice.delta, "reasoning_content", None))
            show_annotations(getattr(choice.delta, "annotations", None), shown)
        if job.mode == "leave" and shown.reasoning:
            stream.completion_stream.close()
            leave()
            return


def show_annotations(annotations: Any, shown: Shown) -> None:
    """The citations."""
    for annotation in annotations or []:
        cited = annotation["url_citation"]
        shown.citations.append({"title": cited["title"], "url": cited["url"]})


def show_sources(said: Any, shown: Shown) -> None:
    """Show the passages that were found."""
    for found in getattr(said, "search_results", None) or []:
        shown.sources.append({"title": found["title"], "url": found["url"]})


def show_usage(usage: Any, shown: Shown) -> None:
    """Show the usage."""
    shown.usage = {
        "input": usage.prompt_tokens,
        "output": usage.completion_tokens,
        "reasoning": usage.completion_tokens_details.reasoning_tokens,
        "searches": getattr(usage, "num_searches", None),
    }


if __name__ == "__main__":
    main(show, litellm.exceptions.openai.APIError)
