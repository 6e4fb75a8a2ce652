"""Metrics of searches that are more than a count."""

from prometheus_client import CollectorRegistry, generate_latest

from searchr1.gateway.search_metrics import SearchMetrics


def test_a_breaker_is_in_one_of_its_states() -> None:
    registry = CollectorRegistry()
    metrics = SearchMetrics(registry)
    for state, number in (("open", 1), ("half_open", 1), ("closed", 1), ("open", 1)):
        metrics.breaker("tavily", state)  # type: ignore[arg-type]
        lines = [line for line in generate_latest(registry).decode().splitlines() if "search_breaker{" in line]
        assert len(lines) == 3
        assert [line for line in lines if line.endswith(" 1.0")] == [
            f'searchr1_search_breaker{{provider="tavily",searchr1_search_breaker="{state}"}} {number}.0'
        ]
