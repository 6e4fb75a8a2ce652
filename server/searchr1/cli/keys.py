"""``searchr1 keys``: API keys that come and go while the server runs."""

import asyncio
import json
import os
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from searchr1.printable import one_line

if TYPE_CHECKING:  # at run time it costs the time that `--help` should not take
    from searchr1.keyring.key_place import KeyPlace
    from searchr1.keyring.key_store import KeyStore
    from searchr1.keyring.stored_key import Scope, StoredKey
    from searchr1.keyring.usage import Usage

T = TypeVar("T")

keys_app = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys; see docs/guides/keys.md.")

_UNITS_S = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}

File = Annotated[Path | None, typer.Option(help="The file of the keys.", envvar="SEARCHR1_KEYS_FILE")]
InRedis = Annotated[
    bool, typer.Option("--in-redis", help="They are in SEARCHR1_REDIS_URL instead.", envvar="SEARCHR1_KEYS_IN_REDIS")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@keys_app.command("create")
def create(
    name: Annotated[str, typer.Option(help="What it is for; shown in lists.")],
    tenant: Annotated[str, typer.Option(help="Whose it is: keys of a tenant share runs, cache and budget.")] = "",
    scopes: Annotated[str, typer.Option(help="infer, read, admin, comma-separated.")] = "infer,read",
    expires: Annotated[str, typer.Option(help="90d, 12h, a date such as 2027-01-31 (UTC), or never.")] = "never",
    rate_per_minute: Annotated[int | None, typer.Option(min=1, help="Requests for runs a minute.")] = None,
    concurrent: Annotated[int | None, typer.Option(min=1, help="Runs at once.")] = None,
    tokens_per_day: Annotated[int | None, typer.Option(min=1, help="Tokens in 24 hours.")] = None,
    searches_per_window: Annotated[
        int | None, typer.Option(min=1, help="Searches in the window of search budgets.")
    ] = None,
    file: File = None,
    in_redis: InRedis = False,
    as_json: Json = False,
) -> None:
    """Make a key and print it: it is stored as a hash, and can't be shown again."""
    from searchr1.keyring.stored_key import StoredLimits, made_key

    place, now = _place(file, in_redis), int(time.time())
    limits = StoredLimits(
        requests_per_minute=rate_per_minute,
        concurrent_runs=concurrent,
        tokens_per_day=tokens_per_day,
        searches_per_window=searches_per_window,
    )
    expires_at = _expiry(expires, now)
    try:
        text, key = made_key(name, now=now, tenant=tenant, scopes=_scopes(scopes), expires_at=expires_at, limits=limits)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    _with_store(place, lambda store: store.add(key))
    if as_json:
        typer.echo(json.dumps({"key": text, **_described(key, None, now)}))
        return
    typer.echo(text)
    until = "never expires" if expires_at is None else f"expires on {_day(expires_at)}"
    typer.echo(f"{key.id}: {', '.join(key.scopes)}; {until}. Keep it: it is not shown again.", err=True)


@keys_app.command("list")
def list_keys(
    file: File = None,
    in_redis: InRedis = False,
    url: Annotated[
        str | None, typer.Option(help="Ask this gateway instead, with SEARCHR1_ADMIN_KEY: it knows the usage.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the keys with their state, limits and usage. Usage is in Redis; without one, each gateway has its own."""
    if url is not None:
        rows = _asked(url)
    else:
        place, now = _place(file, in_redis), time.time()
        stored, usage = asyncio.run(_read(place, _redis_url()))
        ordered = sorted(stored, key=lambda key: key.created_at, reverse=True)
        rows = [_described(key, None if usage is None else usage.get(key.id), now) for key in ordered]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        _print_table(rows)


@keys_app.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As 'searchr1 keys list' shows it; or the key itself.")],
    file: File = None,
    in_redis: InRedis = False,
) -> None:
    """Have a key open nothing any more. Servers that run see it within a few seconds; its runs go on to their end."""
    from searchr1.keyring.key_store import UnknownKeyError
    from searchr1.keyring.key_text import parts_of

    parts = parts_of(key_id.encode("utf-8", "replace"))
    wanted = key_id if parts is None else parts[0]
    place = _place(file, in_redis)
    try:
        key = _with_store(place, lambda store: store.revoke(wanted, now=int(time.time())))
    except UnknownKeyError as error:
        raise UnknownKeyError(f"{error}. Revoke takes a key's id: 'searchr1 keys list' shows them all") from error
    typer.echo(f"{key.id} ({one_line(key.name)}) is revoked.")


def _place(file: Path | None, in_redis: bool) -> "KeyPlace":
    from searchr1.errors import ConfigurationError
    from searchr1.keyring.key_place import key_place

    place = key_place(file, in_redis=in_redis, redis_url=_redis_url())
    if place is None:
        raise ConfigurationError(
            "where are the keys? Give --file PATH or set SEARCHR1_KEYS_FILE; or --in-redis (SEARCHR1_KEYS_IN_REDIS=1) "
            "with SEARCHR1_REDIS_URL. The server needs the same setting"
        )
    return place


def _redis_url() -> str | None:
    """Return the setting, from where the server has it: a variable, or a file of the secrets' folder."""
    if url := os.environ.get("SEARCHR1_REDIS_URL"):
        return url
    secret = Path(os.environ.get("SEARCHR1_SECRETS_DIR", "/nonexistent")) / "searchr1_redis_url"
    return secret.read_text(encoding="utf-8").strip() if secret.is_file() else None


def _with_store(place: "KeyPlace", work: "Callable[[KeyStore], Awaitable[T]]") -> T:
    from searchr1.keyring.opening import open_keys

    async def run() -> T:
        async with aclosing(open_keys(place)) as store:
            return await work(store)

    return asyncio.run(run())


async def _read(place: "KeyPlace", redis_url: str | None) -> "tuple[list[StoredKey], dict[str, Usage] | None]":
    """Return the keys, and their usage where it is in Redis."""
    from searchr1.keyring.opening import open_keys
    from searchr1.keyring.usage import RedisUsage
    from searchr1.redis_client import open_redis

    async with aclosing(open_keys(place)) as store:
        reading = await store.read()
    assert reading is not None, "nothing was read before"
    for fault in reading.faults:
        typer.echo(one_line(fault), err=True)
    if redis_url is None:
        return list(reading.keys), None
    async with aclosing(open_redis(redis_url)) as client:
        return list(reading.keys), await RedisUsage(client).read()


def _asked(url: str) -> list[dict[str, Any]]:
    """Return the rows of ``GET /admin/keys``."""
    import httpx

    from searchr1.errors import GatewayError

    headers = {"Authorization": f"Bearer {os.environ.get('SEARCHR1_ADMIN_KEY', '')}"}
    try:
        answer = httpx.get(f"{url.rstrip('/')}/admin/keys", headers=headers, timeout=30)
        answer.raise_for_status()
        rows: list[dict[str, Any]] = answer.json()["data"]
    except httpx.HTTPStatusError as error:
        what = error.response.status_code
        raise GatewayError(f"{url} answers {what}: does SEARCHR1_ADMIN_KEY hold its admin key?") from error
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise GatewayError(f"{url} can't be asked for its keys: {error}") from error
    return rows


def _scopes(text: str) -> "tuple[Scope, ...]":
    from searchr1.keyring.stored_key import SCOPES

    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if word not in SCOPES:
            raise typer.BadParameter(f"{word!r} is no scope; known: {', '.join(SCOPES)}", param_hint="--scopes")
    return tuple(scope for scope in SCOPES if scope in words)


def _expiry(text: str, now: int) -> int | None:
    """Return the Unix time at which a key expires. Raises ``typer.BadParameter``."""
    from datetime import UTC, date, datetime

    if text == "never":
        return None
    if span := re.fullmatch(r"(\d{1,6})([mhdw])", text):
        expires_at = now + int(span[1]) * _UNITS_S[span[2]]
    else:
        try:
            day = date.fromisoformat(text)
        except ValueError:
            message = f"{text!r} is neither 90d, 12h, 30m, 2w, a date such as 2027-01-31, nor never"
            raise typer.BadParameter(message, param_hint="--expires") from None
        expires_at = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
    if expires_at <= now:
        raise typer.BadParameter(f"{text!r} is over already", param_hint="--expires")
    return expires_at


def _described(key: "StoredKey", usage: "Usage | None", now: float) -> dict[str, Any]:
    """Return a key as ``GET /admin/keys`` has it; ``usage`` is None where nobody knows it."""
    from dataclasses import asdict

    return {
        "id": key.id,
        "name": key.name,
        "tenant": key.tenant or None,
        "scopes": list(key.scopes),
        "state": key.state(now),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "limits": asdict(key.key_limits()),
        "usage": None if usage is None else {**asdict(usage), "last_used_at": usage.last_used_at or None},
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    heads = ("id", "name", "tenant", "scopes", "state", "expires", "limits", "requests", "runs", "tokens", "searches")
    table = Table(*heads, "last used", box=SIMPLE_HEAD)
    for row in rows:
        usage = row["usage"]
        used = ["–"] * 5
        if usage is not None:
            tokens = f"{usage['tokens_in']:,} + {usage['tokens_out']:,}"
            used = [f"{usage['requests']:,}", f"{usage['runs']:,}", tokens, f"{usage['searches']:,}"]
            used.append(_day(usage["last_used_at"]))
        cells = (row["id"], row["name"], row["tenant"] or "–", ", ".join(row["scopes"]), row["state"])
        shown = (*cells, _day(row["expires_at"]), _limits_in_words(row["limits"]), *used)
        table.add_row(*(Text(one_line(cell)) for cell in shown))
    Console(width=None if os.isatty(1) else 240, highlight=False).print(table)


def _limits_in_words(limits: dict[str, int | None]) -> str:
    words = {
        "requests_per_minute": "{} a minute",
        "concurrent_runs": "{} at once",
        "tokens_per_day": "{:,} tokens a day",
        "searches_per_window": "{:,} searches",
    }
    return ", ".join(words[name].format(most) for name, most in limits.items() if most is not None) or "–"


def _day(unix_s: int | None) -> str:
    return "–" if not unix_s else time.strftime("%Y-%m-%d", time.gmtime(unix_s))
