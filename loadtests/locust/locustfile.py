"""Users of a gateway: chat, responses, native research with follow-ups, clients that leave, and slow readers.

    locust -f loadtests/locust/locustfile.py --headless --users 20 --run-time 30s --host http://127.0.0.1:8000

``python -m loadtests.locust`` starts a paced engine and a gateway for them. Every stream is read to its end and held
to it: one that ends otherwise is a failure. Beside the time to the headers, which locust tells under POST, there are
those to the first text and to the end.
"""

import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from locust import HttpUser, between, task

MODEL = "paced"
_QUESTIONS = (
    "Which currency is used in Mali?",
    "What is the capital of the country where Timbuktu is?",
    "Who wrote the anthem of Chad?",
)
_FOLLOW_UPS = ("And its capital?", "Which currency is used there?", "And in Chad?")
_MAX_FOLLOW_UPS = 2
_LONGEST_STAY_S = 4.0
_SLOW_S = 0.05
_SILENCE_S = 60.0


class GatewayUser(HttpUser):
    """What all users share."""

    abstract = True
    wait_time = between(0.1, 1.0)

    @contextmanager
    def streamed(self, path: str, body: dict[str, Any], name: str) -> Iterator[Any]:
        """Ask for a stream, and yield the answer to be judged."""
        sent = {"json": body, "name": name, "stream": True, "catch_response": True, "timeout": _SILENCE_S}
        self._asked_at = time.perf_counter()
        with self.client.post(path, **sent) as response:
            if response.status_code != 200:
                response.failure(f"status {response.status_code}")
                return
            yield response

    def read(self, response: Any, name: str, *, text: str, end: str) -> list[str]:
        """Read to the end, which must hold ``end``; ``text`` marks the first text. Return the lines."""
        lines, has_text = list[str](), False
        for line in _lines(response):
            if not has_text and text in line:
                has_text = True
                self._tell("first text", name)
            lines.append(line)
        if any(end in line for line in lines[-4:]):
            response.success()
            self._tell("whole", name)
        else:
            response.failure("the stream broke off")
        return lines

    def _tell(self, kind: str, name: str) -> None:
        """Have locust count the time since the question."""
        self.environment.events.request.fire(
            request_type=kind,
            name=name,
            response_time=1000 * (time.perf_counter() - self._asked_at),
            response_length=0,
            exception=None,
            context={},
        )


class ChatUser(GatewayUser):
    """Asks as OpenAI's clients do."""

    weight = 3

    @task
    def chat(self) -> None:
        """Read a chat completion."""
        with self.streamed("/v1/chat/completions", _chat(), "chat") as response:
            self.read(response, "chat", text='"reasoning":"', end="[DONE]")


class ResponsesUser(GatewayUser):
    """Asks by the Responses API."""

    weight = 2

    @task
    def response(self) -> None:
        """Read a response."""
        body = {"model": MODEL, "input": random.choice(_QUESTIONS), "stream": True}
        with self.streamed("/v1/responses", body, "responses") as response:
            self.read(response, "responses", text="reasoning_text.delta", end="response.completed")


class ResearchUser(GatewayUser):
    """Talks in the native API: a question and follow-ups."""

    weight = 3

    @task
    def conversation(self) -> None:
        """Ask, and then go on from the run before."""
        run_id = self._ask({"question": random.choice(_QUESTIONS)}, "research")
        for _ in range(random.randint(0, _MAX_FOLLOW_UPS)):
            if run_id is None:
                return
            follow_up = {"question": random.choice(_FOLLOW_UPS), "previous_run_id": run_id}
            run_id = self._ask(follow_up, "research, follow-up")

    def _ask(self, body: dict[str, Any], name: str) -> str | None:
        with self.streamed("/v1/research", {**body, "stream": True}, name) as response:
            lines = self.read(response, name, text="think.delta", end="run.completed")
            data = [line for line in lines if line.startswith("data: ")]
            return str(json.loads(data[0][6:])["run_id"]) if data else None
        return None


class LeavingUser(GatewayUser):
    """Cancels at random: leaves in the queue, in the reasoning, in a search or in the answer."""

    weight = 2

    @task
    def leave(self) -> None:
        """Read for a while, and go."""
        leave_at = time.perf_counter() + random.uniform(0.0, _LONGEST_STAY_S)
        with self.streamed("/v1/chat/completions", _chat(), "chat, left") as response:
            for _ in _lines(response):
                if time.perf_counter() > leave_at:
                    break
            response.success()


class SlowReader(GatewayUser):
    """Reads a stream more slowly than it comes."""

    @task
    def read_slowly(self) -> None:
        """Read a chat completion, with a pause after each line."""
        with self.streamed("/v1/chat/completions", _chat(), "chat, slowly") as response:
            last = ""
            for line in _lines(response):
                time.sleep(_SLOW_S)  # locust's own, which lets other users go on.
                last = line
            if "[DONE]" in last:
                response.success()
            else:
                response.failure("the stream broke off")


def _chat() -> dict[str, Any]:
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": random.choice(_QUESTIONS)}],
        "stream": True,
    }


def _lines(response: Any) -> Iterator[str]:
    for line in response.iter_lines():
        text = line if isinstance(line, str) else line.decode()
        if text.strip():
            yield text
