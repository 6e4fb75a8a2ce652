"""``searchr1 doctor``: whether a gateway with these settings would work, and what to do where it would not."""

import asyncio
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from searchr1.cli.options import Config

if TYPE_CHECKING:  # at run time it costs the time that `--help` should not take
    from searchr1.gateway.doctor.finding import Finding


def doctor(
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as one JSON object.")] = False,
    search: Annotated[bool, typer.Option("--search/--no-search", help="Send each provider one search.")] = True,
) -> None:
    """Check what `searchr1 serve` would need with the same settings, before it starts; nothing is changed.

    One line a check; the exit status is 1 where something is wrong.
    """
    from searchr1.cli.faults import told
    from searchr1.cli.given_settings import load_settings
    from searchr1.gateway.doctor.examination import examine
    from searchr1.gateway.doctor.finding import Verdict, wrong

    try:
        loaded = load_settings(config, {}, {})
    except Exception as error:  # what is no user's to mend goes on as it is
        message = told(error)
        if message is None:
            raise
        findings = [wrong("settings", message, "see docs/reference/settings.md")]
    else:
        findings = asyncio.run(examine(loaded.settings, loaded.warnings, search=search))
    is_well = not any(finding.verdict is Verdict.WRONG for finding in findings)
    if as_json:
        typer.echo(json.dumps({"ok": is_well, "findings": [asdict(finding) for finding in findings]}))
    else:
        _print(findings)
    raise typer.Exit(0 if is_well else 1)


def _print(findings: "list[Finding]") -> None:
    from searchr1.printable import one_line

    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        typer.echo(f"{finding.verdict:8} {finding.check:{width}}  {one_line(finding.told)}")
        if finding.fix:
            typer.echo(f"{'':8} {'':{width}}  -> {finding.fix}")
