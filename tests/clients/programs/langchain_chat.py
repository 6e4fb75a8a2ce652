"""Chat Completions through ``langchain-openai`` (whole, stream)."""

from langchain_openai import ChatOpenAI  # type: ignore[import-not-found]  # in .venv-clients
from openai import APIError

from tests.clients.programs.report import Job, Shown, leave, main


def show(job: Job, shown: Shown) -> None:
    """Ask as the mode says."""
    chat = ChatOpenAI(model=job.model, base_url=job.url, api_key="none", max_retries=0, stream_usage=True)
    if job.mode == "whole":
        message = chat.invoke(job.question)
        shown.text = message.content
        show_message(message, shown)
        return
    whole = None
    stream = chat.stream(job.question)
    for chunk in stream:
        whole = chunk if whole is None else whole + chunk
        shown.add_text(chunk.content)
        if job.mode == "leave":
            stream.close()
            leave()
            return
    show_message(whole, shown)


def show_message(message: object, shown: Shown) -> None:
    """Show the parts beside the text; reasoning, citations and sources are left out of every field."""
    usage = message.usage_metadata  # type: ignore[attr-defined]
    shown.usage = {
        "input": usage["input_tokens"],
        "output": usage["output_tokens"],
        "reasoning": usage["output_token_details"]["reasoning"],
        "searches": message.response_metadata.get("token_usage", {}).get("num_searches"),  # type: ignore[attr-defined]
    }
    for block in message.content_blocks:  # type: ignore[attr-defined]
        shown.reasoning += block.get("reasoning", "")
        shown.citations += [{"title": a["title"], "url": a["url"]} for a in block.get("annotations", [])]
    for name in ("reasoning", "reasoning_content"):
        shown.reasoning += message.additional_kwargs.get(name, "")  # type: ignore[attr-defined]


if __name__ == "__main__":
    main(show, APIError)
