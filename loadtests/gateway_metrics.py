"""Gauges from a gateway's ``/metrics``, summed over their labels."""

from prometheus_client.parser import text_string_to_metric_families


def total(metrics: str, name: str) -> float:
    """Return the sum of the gauges called ``name``, whatever their labels.

    Raises:
        LookupError: the gateway has no gauge of such a name, which would else count as 0 for ever.

    >>> total('# TYPE runs gauge\\nruns{model="a"} 2.0\\nruns{model="b"} 1.0\\n', "runs")
    3.0
    """
    found = [family for family in text_string_to_metric_families(metrics) if family.name == name]
    if not found:
        raise LookupError(f"the gateway's metrics have no {name}")
    return sum(sample.value for family in found for sample in family.samples)
