"""Prometheus watches a loaded gateway: what every panel and alert finds, and a burn rate that fires and clears.

    python -m loadtests.monitoring

starts two engines, a search, a gateway under load and a Prometheus, on 127.0.0.1, with the chart's rules, whose hours
are minutes here. Needs a ``prometheus`` on the PATH. Exits with 1 where a panel shows nothing, an alert asks for what
is not measured, or the burn-rate alert is not seen to fire and clear.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from loadtests.monitoring.prometheus import running_prometheus
from loadtests.monitoring.stack import running_stack
from loadtests.monitoring.watch import BURN_ALERT, Seen, burn, look_at_alerts, look_at_panels


def main() -> None:
    """Parse the arguments; print what is seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--within-s", type=float, default=120.0, help="for each thing to be seen")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with running_stack(folder) as stack, running_prometheus(folder, stack.target) as prometheus:
            panels = look_at_panels(prometheus, options.within_s)
            _print_table("panel", panels)
            alerts = look_at_alerts(prometheus)
            _print_table("alert", alerts)
            for name, error in prometheus.errors().items():
                print(f"{name}: {error}")
            seen = burn(prometheus, stack, options.within_s)
            is_fine = not prometheus.errors()
    print(f"\nEvery completion is refused from 0 s to {seen.mended_s:.1f} s. {BURN_ALERT} is")
    print(f"pending at {seen.pending_s:.1f} s, firing at {seen.firing_s:.1f} s, gone at {seen.cleared_s:.1f} s.")
    sys.exit(not (is_fine and all(one.has_data for one in panels) and not any(one.missing for one in alerts)))


def _print_table(what: str, seen: list[Seen]) -> None:
    print(f"\n| {what} | series | values now |\n|---|---|---|")
    for one in seen:
        values = ", ".join(f"{value:.3g}" for value in one.values[:4]) + (", …" if len(one.values) > 4 else "")
        missing = f" (no series of {', '.join(sorted(one.missing))})" if one.missing else ""
        print(f"| {one.what.name} | {len(one.values)} | {values or '–'}{missing} |", flush=True)


if __name__ == "__main__":
    main()
