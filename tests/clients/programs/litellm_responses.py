"""Responses through ``litellm`` (whole, stream)."""

from typing import Any

import litellm  # type: ignore[import-not-found]  # in .venv-clients, not beside the type checker

from tests.clients.programs.report import Job, Shown, leave, main

litellm.suppress_debug_info = True


def show(job: Job, shown: Shown) -> None:
    """Ask as the mode says."""
    # Without this litellm asks for the whole response and cuts it into pieces: it does not know the model.
    known = {"litellm_provider": "openai", "mode": "responses", "supports_native_streaming": True}
    litellm.register_model({f"openai/{job.model}": known})
    asked = {
        "model": f"openai/{job.model}",
        "api_base": job.url,
        "api_key": "none",
        "input": job.question,
        "include": ["web_search_call.results"],
        "max_retries": 0,
    }
    if job.mode == "whole":
        response = litellm.responses(**asked)
        shown.text = response.output_text
        for item in response.output:
            show_item(item.model_dump(), shown)
        shown.reasoning = "".join(
            part.text for item in response.output if item.type == "reasoning" for part in item.content
        )
        show_usage(response.usage, shown)
        return
    # One that is not stored can't be taken up again, so leaving it ends it at once.
    stream = litellm.responses(**asked, stream=True, store=job.mode != "leave")
    for event in stream:
        show_event(event, shown)
        if job.mode == "leave" and shown.reasoning:
            stream.response.close()
            leave()
            return


def show_event(event: Any, shown: Shown) -> None:
    """Show the parts that one event adds."""
    match event.type:
        case "response.reasoning_text.delta":
            shown.add_reasoning(event.delta)
        case "response.output_text.delta":
            shown.add_text(event.delta)
        case "response.output_item.done":
            show_item(event.item.model_dump(), shown)
        case "response.completed":
            show_usage(event.response.usage, shown)


def show_item(item: dict[str, Any], shown: Shown) -> None:
    """A finished search or the message."""
    if item["type"] == "web_search_call":
        shown.searches.append(item["action"]["query"])
        shown.sources += [{"title": found["title"], "url": found["url"] or ""} for found in item["results"]]
    elif item["type"] == "message":
        cited = [annotation for part in item["content"] for annotation in part["annotations"]]
        shown.citations = [{"title": one["title"], "url": one["url"]} for one in cited]


def show_usage(usage: Any, shown: Shown) -> None:
    """Show the usage."""
    shown.usage = {
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "reasoning": usage.output_tokens_details.reasoning_tokens,
        "searches": usage.num_searches,
    }


if __name__ == "__main__":
    main(show, litellm.exceptions.openai.APIError)
