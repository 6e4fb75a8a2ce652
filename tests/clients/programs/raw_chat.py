"""Chat Completions through programs that know HTTP alone: JSON as it comes."""

import json
import subprocess
from typing import Any

from tests.clients.programs.report import Job, Shown, leave


class StatusError(Exception):
    """The server's error, with its status."""

    def __init__(self, message: str, status_code: int | None = None) -> None:
        super().__init__(message)
        self.status_code = status_code


def body_of(job: Job) -> str:
    """The request that the mode asks for."""
    body: dict[str, Any] = {"model": job.model, "messages": [{"role": "user", "content": job.question}]}
    if job.mode != "whole":
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(body)


def show_whole(command: list[str], shown: Shown) -> None:
    """Show what ``command`` prints: a completion, and its status on a line of its own."""
    answered = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    text, _, status = answered.stdout.decode().strip().rpartition("\n")
    show_object(raised(json.loads(text), int(status.split()[0])), shown)


def show_stream(command: list[str], job: Job, shown: Shown) -> None:
    """Show the events that ``command`` prints as they come."""
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                data = line.decode().removeprefix("data: ").strip()
                if line.startswith(b"data: ") and data != "[DONE]":
                    show_object(raised(json.loads(data)), shown)
                if job.mode == "leave" and shown.reasoning:
                    break
        finally:
            process.terminate()
    if job.mode == "leave":
        leave()


def raised(said: dict[str, Any], status: int | None = None) -> dict[str, Any]:
    """``said``, unless it is an error."""
    if "error" in said:
        raise StatusError(said["error"]["message"], status)
    return said


def show_object(said: dict[str, Any], shown: Shown) -> None:
    """Show a completion's parts, or those that a chunk adds."""
    shown.sources += [{"title": one["title"], "url": one["url"]} for one in said.get("search_results", [])]
    if usage := said.get("usage"):
        shown.usage = {
            "input": usage["prompt_tokens"],
            "output": usage["completion_tokens"],
            "reasoning": usage["completion_tokens_details"]["reasoning_tokens"],
            "searches": usage["num_searches"],
        }
    for choice in said["choices"]:
        if "delta" in choice:
            shown.add_text(choice["delta"].get("content"))
            shown.add_reasoning(choice["delta"].get("reasoning"))
        else:
            shown.text, shown.reasoning = choice["message"]["content"], choice["message"]["reasoning"]
        for one in (choice.get("delta") or choice["message"]).get("annotations", []):
            cited = one["url_citation"]
            shown.citations.append({"title": cited["title"], "url": cited["url"]})
