"""Responses through ``langchain-openai`` (whole, stream)."""

from typing import Any

from langchain_openai import ChatOpenAI  # type: ignore[import-not-found]  # in .venv-clients
from openai import APIError

from tests.clients.programs.report import Job, Shown, leave, main


def show(job: Job, shown: Shown) -> None:
    """Ask as the mode says."""
    chat = ChatOpenAI(
        model=job.model,
        base_url=job.url,
        api_key="none",
        max_retries=0,
        use_responses_api=True,
        # Reasoning is shown as a summary alone; a summary of it is the whole of it.
        reasoning={"summary": "auto"},
        include=["web_search_call.results"],
        # One that is not stored can't be taken up again, so leaving it ends it at once.
        store=job.mode != "leave",
    )
    if job.mode == "whole":
        message = chat.invoke(job.question)
        shown.text = message.text
        show_message(message, shown)
        return
    whole = None
    stream = chat.stream(job.question)
    for chunk in stream:
        whole = chunk if whole is None else whole + chunk
        shown.add_text(chunk.text)
        for block in chunk.content_blocks:
            if block["type"] == "reasoning":
                shown.add_reasoning(block.get("reasoning"))
        if job.mode == "leave" and shown.reasoning:
            stream.close()
            leave()
            return
    shown.reasoning = ""
    show_message(whole, shown)


def show_message(message: Any, shown: Shown) -> None:
    """Show the parts of a whole message beside its text."""
    usage = message.usage_metadata
    shown.usage = {
        "input": usage["input_tokens"],
        "output": usage["output_tokens"],
        "reasoning": usage["output_token_details"]["reasoning"],
        "searches": usage.get("num_searches"),
    }
    for block in message.content_blocks:
        if block["type"] == "reasoning":
            shown.reasoning += block.get("reasoning", "")
        elif block["type"] == "server_tool_call":
            shown.searches.append(block["args"]["query"])
            shown.sources += [{"title": found["title"], "url": found["url"] or ""} for found in block["results"]]
        elif block["type"] == "text":
            shown.citations += [{"title": a["title"], "url": a["url"]} for a in block.get("annotations", [])]


if __name__ == "__main__":
    main(show, (APIError, ValueError))
