"""Responses through ``openai``: sync (whole, stream), its streaming helper (helper), and async (async)."""

import asyncio
from typing import Any

from openai import APIError, AsyncOpenAI, OpenAI

from tests.clients.programs.report import Job, Shown, leave, main

INCLUDE: Any = ["web_search_call.results"]


def show(job: Job, shown: Shown) -> None:
    """Ask as the mode says."""
    if job.mode == "async":
        asyncio.run(show_async(job, shown))
        return
    asked = {"model": job.model, "input": job.question, "include": INCLUDE}
    with OpenAI(base_url=job.url, api_key="none", max_retries=0) as client:
        if job.mode == "whole":
            response = client.responses.create(**asked)
            shown.text = response.output_text
            shown.reasoning = "".join(
                part.text for item in response.output if item.type == "reasoning" for part in item.content or []
            )
            for item in response.output:
                show_item(item, shown)
            show_usage(response.usage, shown)
        elif job.mode == "helper":
            with client.responses.stream(**asked) as helped:
                for event in helped:
                    show_event(event, shown)
                assert helped.get_final_response().output_text == shown.text
        else:
            # One that is not stored can't be taken up again, so leaving it ends it at once.
            with client.responses.create(**asked, stream=True, store=job.mode != "leave") as stream:
                for event in stream:
                    show_event(event, shown)
                    if job.mode == "leave" and shown.reasoning:
                        break
            if job.mode == "leave":
                leave()


async def show_async(job: Job, shown: Shown) -> None:
    """Stream with the async client."""
    async with AsyncOpenAI(base_url=job.url, api_key="none", max_retries=0) as client:
        async for event in await client.responses.create(
            model=job.model, input=job.question, include=INCLUDE, stream=True
        ):
            show_event(event, shown)


def show_event(event: Any, shown: Shown) -> None:
    """Show the parts that one event adds."""
    match event.type:
        case "response.reasoning_text.delta":
            shown.add_reasoning(event.delta)
        case "response.output_text.delta":
            shown.add_text(event.delta)
        case "response.output_item.done":
            show_item(event.item, shown)
        case "response.completed":
            show_usage(event.response.usage, shown)
        case "response.failed":
            shown.error = {"kind": event.type, "status": None, "message": event.response.error.message}


def show_item(item: Any, shown: Shown) -> None:
    """A finished search or the message."""
    if item.type == "web_search_call":
        shown.searches.append(item.action.query)
        shown.sources += [{"title": found["title"], "url": found["url"] or ""} for found in item.results]
    elif item.type == "message":
        cited = [annotation for part in item.content for annotation in part.annotations]
        shown.citations = [{"title": one.title, "url": one.url} for one in cited]


def show_usage(usage: Any, shown: Shown) -> None:
    """Show the usage."""
    shown.usage = {
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "reasoning": usage.output_tokens_details.reasoning_tokens,
        "searches": usage.num_searches,
    }


if __name__ == "__main__":
    main(show, APIError)
