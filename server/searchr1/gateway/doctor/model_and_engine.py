"""The check of one model: its tokenizer and chat template, then the engine that runs it, here or elsewhere."""

import asyncio
from collections.abc import Sequence

from searchr1.engines.pool.discovery import discovery_of
from searchr1.errors import ConfigurationError, EngineError
from searchr1.gateway.doctor.engine_here import examine_engine_here
from searchr1.gateway.doctor.finding import Finding, ok, wrong
from searchr1.gateway.doctor.vllm_server import examine_server
from searchr1.rollout import check_profile
from searchr1.settings import Settings
from searchr1.tokenizer import Tokenizer


async def examine_engine(settings: Settings, check: str) -> Sequence[Finding]:
    """Return what is to be said of the model of ``settings``; ``check`` is what the findings call its engine."""
    source = settings.tokenizer or settings.model
    try:
        tokenizer = await asyncio.to_thread(Tokenizer.load, source, add_bos=settings.add_bos)
    except ConfigurationError as error:
        fix = "name a folder or a hub name that has one by SEARCHR1_TOKENIZER"
        return [wrong("tokenizer", str(error), fix), *await _engine(settings, check, None)]
    return [*_format(settings, tokenizer, source), *await _engine(settings, check, tokenizer)]


def _format(settings: Settings, tokenizer: Tokenizer, source: str) -> list[Finding]:
    profile = settings.loop_profile()
    found = [ok("tokenizer", f"{source}: {tokenizer.vocab_size:,} ids")]
    try:
        check_profile(profile, tokenizer)
    except ConfigurationError as error:
        fix = "take the SEARCHR1_PROFILE that the model was trained on, or the tokenizer that came with it"
        return [*found, wrong("template", str(error), fix)]
    return [*found, ok("template", f"a question can be asked as the profile {settings.profile!r} words it")]


async def _engine(settings: Settings, check: str, tokenizer: Tokenizer | None) -> list[Finding]:
    config = settings.engine_config(None if tokenizer is None else tokenizer.vocab_size)
    if not config.urls:
        return examine_engine_here(settings, config, check)
    try:
        urls = sorted(await discovery_of(config.urls).addresses())
    except ConfigurationError as error:
        return [wrong(check, str(error), "correct SEARCHR1_ENGINE_URL")]
    except EngineError as error:
        return [wrong(check, str(error), "see whether the name or the service is there")]
    if not urls:
        return [wrong(check, "nothing is behind the address", "start a vLLM there")]
    found = await asyncio.gather(*(examine_server(url, settings, config, tokenizer, check) for url in urls))
    return [finding for findings in found for finding in findings]
