"""docs/reference/metrics.md against what a gateway exports: each metric with its type, labels and help, both ways."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from searchr1.retrieval.base import SearchFailed
from tests.gateway.conftest import StageRetriever, running_stage
from tests.gateway.test_engine_pool import served

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"


class Documented(NamedTuple):
    """A metric as its row tells it, and as it is exported."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str


def on_the_page() -> list[Documented]:
    rows = re.findall(r"^\| `(searchr1_\w+)` \| (\w+) \| (.*?) \| (.+) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    return [Documented(name, kind, tuple(re.findall(r"`(\w+)`", labels)), said) for name, kind, labels, said in rows]


def exported(text: str, registry: CollectorRegistry) -> list[Documented]:
    """Return the metrics of an exposition; labels are the collectors', since a metric without samples shows none."""
    labels: dict[str, tuple[str, ...]] = {}
    for collector in vars(registry)["_collector_to_names"]:
        labels[vars(collector)["_name"]] = tuple(vars(collector)["_labelnames"])
    families = list(text_string_to_metric_families(text))
    suffix = {"counter": "_total"}
    return [
        Documented(f"{one.name}{suffix.get(one.type, '')}", one.type, labels[one.name], one.documentation)
        for one in families
    ]


async def test_the_page_has_every_metric_and_no_other() -> None:
    async with served() as (stage, _):
        text = (await stage.client.get("/metrics")).text
        assert sorted(exported(text, stage.services.metrics.registry)) == sorted(on_the_page())


async def test_the_page_explains_every_label_and_no_other() -> None:
    labels = {label for row in on_the_page() for label in row.labels}
    section = PAGE.read_text("utf-8").split("## Labels\n")[1]
    told = {
        name for cell in re.findall(r"^\| ([^|]+) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)
    }
    assert told == labels


async def samples_of(client: httpx.AsyncClient) -> dict[str, list[tuple[dict[str, str], float]]]:
    text = (await client.get("/metrics")).text
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def value(samples: dict[str, list[tuple[dict[str, str], float]]], name: str, **labels: str) -> float:
    [found] = [number for given, number in samples[name] if given == labels]
    return found


async def test_a_run_is_measured_from_its_wait_to_its_answer() -> None:
    twice = ["<search> Mali </search>", "<search>  MALI </search>", "Well.", "<answer> Bamako </answer>"]
    async with served() as (stage, fakes):
        for fake in fakes:
            fake.completions = iter(twice)
            fake.num_cached_tokens = 7
        asked: dict[str, Any] = {"question": "Mali?"}
        assert (await stage.client.post("/v1/research", json=asked)).json()["status"] == "completed"
        samples = await samples_of(stage.client)
    model = "test-model"
    assert value(samples, "searchr1_queue_seconds_count", model=model, outcome="started") == 1
    for name in ("turn_wait", "first_search", "answer", "gateway_overhead", "first_text", "run"):
        assert value(samples, f"searchr1_{name}_seconds_count", model=model) == 1, name
    assert value(samples, "searchr1_completion_seconds_count", model=model) == 4
    turns = {outcome: value(samples, "searchr1_turns_total", model=model, outcome=outcome) for outcome in TURNS}
    assert turns == {"search": 2, "answer": 1, "invalid": 1, "unfinished": 0}
    assert value(samples, "searchr1_searches_per_run_sum", model=model, status="completed") == 2
    assert value(samples, "searchr1_invalid_actions_total", model=model, reason="no_action") == 1
    assert value(samples, "searchr1_duplicate_queries_total", model=model) == 1
    hits = {labels["turn"]: number for labels, number in samples["searchr1_turn_prefix_hit_tokens_total"]}
    assert hits == {"1": 7, "2": 7, "3": 7, "4": 7}
    prompts = [value(samples, "searchr1_turn_prompt_tokens_total", model=model, turn=str(n)) for n in range(1, 5)]
    assert prompts == sorted(prompts)
    assert prompts[0] > 7
    parts = sum(value(samples, f"searchr1_{name}_seconds_sum", model=model) for name in ("completion", "turn_wait"))
    overhead_s = value(samples, "searchr1_gateway_overhead_seconds_sum", model=model)
    assert 0 < overhead_s <= value(samples, "searchr1_run_seconds_sum", model=model) - parts


TURNS = ("search", "answer", "invalid", "unfinished")


async def test_requests_are_counted_by_route_and_status_with_bounded_labels() -> None:
    async with running_stage(
        api_keys="a-key-of-the-stage", retriever=StageRetriever(SearchFailed("timeout", "slow"))
    ) as stage:
        client, key = stage.client, {"authorization": "Bearer a-key-of-the-stage"}
        await client.post("/v1/research", json={"question": "Mali?", "stream": True}, headers=key)
        await client.post("/v1/research", json={"question": "Mali?"})
        await client.post("/v1/research", json={"question": 5}, headers=key)
        await client.get("/v1/research/run_none", headers=key)
        await client.head("/healthz")
        await client.put("/healthz")
        await client.request("PROPFIND", "/healthz")
        await client.get("/assets/app.js")
        for number in range(3):
            await client.get(f"/nothing/{number}")
        samples = await samples_of(client)
    counted = {
        (labels["method"], labels["route"], labels["status"]): number
        for labels, number in samples["searchr1_http_requests_total"]
    }
    assert counted == {
        ("POST", "/v1/research", "200"): 1,
        ("POST", "/v1/research", "401"): 1,
        ("POST", "/v1/research", "400"): 1,
        ("GET", "/v1/research/{run_id}", "404"): 1,
        ("HEAD", "/healthz", "200"): 1,
        ("PUT", "/healthz", "405"): 1,
        ("other", "/healthz", "405"): 1,
        ("GET", "/assets", "200"): 1,
        ("GET", "other", "404"): 3,
    }
    assert value(samples, "searchr1_http_request_seconds_count", route="/v1/research") == 3
    assert value(samples, "searchr1_http_requests_in_flight") == 1  # The one that asks.
    assert value(samples, "searchr1_searches_total", outcome="timeout", cache="miss") == 1


async def test_what_can_fail_is_counted_from_0_on() -> None:
    async with running_stage() as stage:
        samples = await samples_of(stage.client)
    assert value(samples, "searchr1_runs_total", model="test-model", status="failed") == 0
    assert value(samples, "searchr1_searches_total", outcome="unavailable", cache="miss") == 0
    assert value(samples, "searchr1_requests_shed_total", reason="no_slot") == 0
    assert [number for labels, number in samples["searchr1_build_info"] if labels["version"]] == [1]
