"""Chat Completions through ``openai``: sync (whole, stream), its streaming helper (helper), and async (async)."""

import asyncio
from typing import Any

from openai import APIError, AsyncOpenAI, OpenAI

from tests.clients.programs.report import Job, Shown, leave, main


def show(job: Job, shown: Shown) -> None:
    """Ask as the mode says."""
    if job.mode == "async":
        asyncio.run(show_async(job, shown))
        return
    asked = {"model": job.model, "messages": messages_of(job)}
    with OpenAI(base_url=job.url, api_key="none", max_retries=0) as client:
        if job.mode == "whole":
            completion = client.chat.completions.create(**asked)
            message = completion.choices[0].message
            shown.text, shown.reasoning = message.content, message.reasoning
            show_annotations(message.annotations, shown)
            show_sources(completion, shown)
            show_usage(completion.usage, shown)
        elif job.mode == "helper":
            with client.chat.completions.stream(**asked, stream_options={"include_usage": True}) as helped:
                for event in helped:
                    if event.type == "content.delta":
                        shown.add_text(event.delta)
                    elif event.type == "chunk":
                        show_chunk(event.chunk, shown, with_text=False)
                final = helped.get_final_completion()
                assert shown.text == final.choices[0].message.content
                assert final.choices[0].message.annotations
        else:
            with client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}) as stream:
                for chunk in stream:
                    show_chunk(chunk, shown)
                    if job.mode == "leave" and shown.reasoning:
                        break
            if job.mode == "leave":
                leave()


async def show_async(job: Job, shown: Shown) -> None:
    """Stream with the async client."""
    async with AsyncOpenAI(base_url=job.url, api_key="none", max_retries=0) as client:
        async for chunk in await client.chat.completions.create(
            model=job.model, messages=messages_of(job), stream=True, stream_options={"include_usage": True}
        ):
            show_chunk(chunk, shown)


def messages_of(job: Job) -> Any:
    """The conversation."""
    return [{"role": "user", "content": job.question}]


def show_chunk(chunk: Any, shown: Shown, *, with_text: bool = True) -> None:
    """Show the parts that one chunk adds."""
    show_sources(chunk, shown)
    if chunk.usage is not None:
        show_usage(chunk.usage, shown)
    for choice in chunk.choices:
        if with_text:
            shown.add_text(choice.delta.content)
        shown.add_reasoning(getattr(choice.delta, "reasoning", None))
        show_annotations(getattr(choice.delta, "annotations", None), shown)


def show_annotations(annotations: Any, shown: Shown) -> None:
    """The citations. In a delta they are plain dicts: OpenAI's own chunks have none."""
    for annotation in annotations or []:
        cited = annotation["url_citation"] if isinstance(annotation, dict) else annotation.url_citation.model_dump()
        shown.citations.append({"title": cited["title"], "url": cited["url"]})


def show_sources(said: Any, shown: Shown) -> None:
    """Show the passages that were found."""
    for found in getattr(said, "search_results", []):
        shown.sources.append({"title": found["title"], "url": found["url"]})


def show_usage(usage: Any, shown: Shown) -> None:
    """Show the usage."""
    shown.usage = {
        "input": usage.prompt_tokens,
        "output": usage.completion_tokens,
        "reasoning": usage.completion_tokens_details.reasoning_tokens,
        "searches": usage.num_searches,
    }


if __name__ == "__main__":
    main(show, APIError)
