"""The check of one vLLM that runs elsewhere: that it answers, what it serves, and that it was started as runs need it.

It is asked what it tells by itself, and for one token, once for each thing that only a completion shows.
"""

import re
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, Final

import aiohttp
import msgspec

from searchr1.engines.base import Chunk, SamplingParams
from searchr1.engines.factory import EngineConfig
from searchr1.engines.pool.load import load_of
from searchr1.engines.vllm.address import ServerAddress
from searchr1.engines.vllm.exchange import start_of_body
from searchr1.engines.vllm.http import VllmHttpEngine
from searchr1.errors import ConfigurationError, EngineError
from searchr1.gateway.doctor.finding import Finding, ok, warning, wrong
from searchr1.rollout import render_prompt
from searchr1.settings import Settings
from searchr1.tokenizer import Tokenizer

TESTED: Final = (0, 32)
"""The version of vLLM that this release is tested with."""
_SECONDS: Final = 10.0
_SERVER_INFO_S: Final = 40.0
"""vLLM runs other programs for its first answer."""
_MAX_BYTES: Final = 4 * 2**20
_CACHING: Final = re.compile(r'^vllm:cache_config_info\{[^}\n]*enable_prefix_caching="(\w+)"', re.MULTILINE)
_FIXES: Final = {
    "unreachable": "start it, or correct SEARCHR1_ENGINE_URL",
    "refused_key": "set SEARCHR1_ENGINE_API_KEY to its --api-key",
    "model_not_served": "name what it serves by SEARCHR1_MODEL, or start it with --served-model-name",
    "context_too_short": "start it with a higher --max-model-len, or lower SEARCHR1_MAX_CONTEXT_TOKENS",
}
_PRIORITY_FIX: Final = "start it with --scheduling-policy priority, or turn SEARCHR1_ENGINE_PRIORITY off"


async def examine_server(
    url: str, settings: Settings, config: EngineConfig, tokenizer: Tokenizer | None, check: str
) -> Sequence[Finding]:
    """Return what is to be said of the vLLM at ``url``; without ``tokenizer`` it is asked for no token."""
    try:
        address = ServerAddress.parse(url, config.api_key)
    except ConfigurationError as error:
        return [wrong(check, str(error), "correct SEARCHR1_ENGINE_URL or SEARCHR1_ENGINE_API_KEY")]
    async with VllmHttpEngine(
        url,
        config.model,
        api_key=config.api_key,
        priority_scheduling=config.priority_scheduling,
        max_model_len=config.max_model_len,
        vocab_size=config.vocab_size,
    ) as engine:
        health = await engine.health()
        if not health.ok:
            return [wrong(check, health.detail, _FIXES.get(health.reason, "see its log"))]
        found = [await _served(address, config, check)]
        found += await _metrics(engine, config, check)
        if tokenizer is None:
            return found
        found += await _same_ids(address, settings, config, tokenizer)
        found += await _completions(engine, settings, tokenizer, check)
        return [*found, *await _policy(address, config, check)]


async def _served(address: ServerAddress, config: EngineConfig, check: str) -> Finding:
    answer = await _asked(address, "/version")
    version = str(answer.get("version", "")) if isinstance(answer, dict) else ""
    told = f"vLLM {version or 'of unknown version'} at {address.url} serves {config.model}"
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if numbers and numbers < TESTED:
        return warning(check, told, f"take {'.'.join(map(str, TESTED))} or later, which this release is tested with")
    longest = config.max_model_len
    return ok(check, told if longest is None else f"{told}, with room for the {longest} tokens of the longest run")


async def _metrics(engine: VllmHttpEngine, config: EngineConfig, check: str) -> list[Finding]:
    try:
        metrics = await engine.metrics_text()
    except EngineError as error:
        fix = "let /metrics through: runs are scheduled by the KV cache that it tells"
        return [warning(check, f"its metrics can't be had: {error}", fix)]
    found: list[Finding] = []
    caching = _CACHING.search(metrics)
    if caching is not None and caching[1] != "True":
        told = "prefix caching is off: each turn reads the whole run anew"
        found.append(warning(check, told, "start it with --enable-prefix-caching"))
    elif caching is not None:
        found.append(ok(check, "prefix caching is on"))
    capacity, longest = load_of(metrics).capacity_tokens, config.max_model_len or 0
    if capacity is None:
        fix = "see whether /metrics is vLLM's own: without it, runs are bounded by their number alone"
        return [*found, warning(check, "it does not tell how much its KV cache holds", fix)]
    told = f"its KV cache holds {capacity:,} tokens, {capacity / max(longest, 1):.1f} runs of full length"
    if capacity < longest:
        return [*found, wrong(check, told, "give it more memory, or lower SEARCHR1_MAX_CONTEXT_TOKENS")]
    return [*found, ok(check, told)]


async def _same_ids(
    address: ServerAddress, settings: Settings, config: EngineConfig, tokenizer: Tokenizer
) -> list[Finding]:
    """Compare the ids that both make of a prompt in the profile's words, special tokens and tags included."""
    text = _prompt(settings, tokenizer)
    if text is None:
        return []
    body = {"model": config.model, "prompt": text, "add_special_tokens": False}
    answer = await _asked(address, "/tokenize", body)
    theirs = answer.get("tokens") if isinstance(answer, dict) else None
    if not isinstance(theirs, list):
        return []  # Routers, and others that speak vLLM's wire, have no such route.
    ours = tokenizer.encode_prompt(text)
    if theirs == ours:
        return [ok("tokenizer", f"the engine makes the same {len(ours)} ids of a prompt")]
    told = f"the engine makes other ids of a prompt: {len(theirs)}, not {len(ours)}"
    return [wrong("tokenizer", told, "name the served model's own tokenizer by SEARCHR1_TOKENIZER")]


async def _completions(engine: VllmHttpEngine, settings: Settings, tokenizer: Tokenizer, check: str) -> list[Finding]:
    prompt = _prompt(settings, tokenizer)
    if prompt is None:
        return []
    ids = tuple(tokenizer.encode_prompt(prompt))
    try:
        last = await _one_token(engine, ids, priority=0)
    except EngineError as error:
        return [wrong(check, f"it gives no token: {error}", "see its log")]
    found: list[Finding] = []
    if last is None or last.num_cached_tokens is None:
        told = "it does not tell which tokens its cache held, so that usage says 0"
        found.append(warning(check, told, "start it with --enable-prompt-tokens-details"))
    else:
        found.append(ok(check, "it tells which tokens its cache held"))
    if not settings.engine_priority:
        return found
    try:
        await _one_token(engine, ids, priority=1)
    except EngineError as error:
        found.append(wrong(check, f"it takes no priorities: {error}", _PRIORITY_FIX))
    return found


async def _policy(address: ServerAddress, config: EngineConfig, check: str) -> list[Finding]:
    """Return whether it goes by priorities: one that does not takes and ignores them, and most do not tell."""
    if not config.priority_scheduling:
        return []
    match await _asked(address, "/server_info?config_format=json", within_s=_SERVER_INFO_S):
        case {"vllm_config": {"scheduler_config": {"policy": str(policy)}}}:
            if policy == "priority":
                return [ok(check, "it schedules by priority")]
            return [wrong(check, f"it schedules by {policy}, and ignores priorities", _PRIORITY_FIX)]
    told = "it takes priorities, and tells in development mode alone whether --scheduling-policy is priority"
    return [ok(check, told)]


def _prompt(settings: Settings, tokenizer: Tokenizer) -> str | None:
    profile = settings.loop_profile()
    try:
        return render_prompt(profile.prompt("Which city is the capital of Mali?"), tokenizer, profile)
    except ConfigurationError:
        return None  # Which the check of the template tells.


async def _one_token(engine: VllmHttpEngine, ids: tuple[int, ...], *, priority: int) -> Chunk | None:
    """Return the last piece of a completion of one token. Raises ``EngineError``."""
    last = None
    params = SamplingParams(max_tokens=1, temperature=0.0)
    async with aclosing(engine.generate(ids, params, session="doctor", priority=priority)) as chunks:
        async for chunk in chunks:
            last = chunk
    return last


async def _asked(address: ServerAddress, path: str, body: Any = None, *, within_s: float = _SECONDS) -> Any:
    """Return the JSON that the server answers to a GET, or to a POST of ``body``; None for anything else."""
    headers = {} if address.authorization is None else {"Authorization": address.authorization}
    timeout = aiohttp.ClientTimeout(total=within_s)
    method = "GET" if body is None else "POST"
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
            session.request(method, address.url + path, json=body, allow_redirects=False) as response,
        ):
            if response.status != 200:
                return None
            return msgspec.json.decode(await start_of_body(response, _MAX_BYTES))
    except (aiohttp.ClientError, OSError, ValueError, msgspec.MsgspecError):
        return None
