"""The check of this machine: the ports, open files, memory, and room for temporary files."""

import resource
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from searchr1.errors import ConfigurationError
from searchr1.gateway.bounds import num_files
from searchr1.gateway.doctor.finding import Finding, ok, warning, wrong
from searchr1.gateway.ops_port import ops_host
from searchr1.settings import Settings
from searchr1.sockets import bind

_GIB: Final = 2**30
_MIB: Final = 2**20
_METRICS_MIB: Final = 16
"""Room for the metrics that one worker shares with the others."""
_MEMINFO: Final = Path("/proc/meminfo")


async def examine_machine(settings: Settings) -> Sequence[Finding]:
    """Return what is to be said of the machine that the gateway would run on."""
    return [*_ports(settings), _files(settings), *_memory(settings), *_disk(settings)]


def _ports(settings: Settings) -> list[Finding]:
    found = [_port(settings.host, settings.port, "SEARCHR1_PORT")]
    if settings.ops_port is not None:
        found.append(_port(ops_host(settings), settings.ops_port, "SEARCHR1_OPS_PORT"))
    return found


def _port(host: str, port: int, name: str) -> Finding:
    try:
        bind(host, port).close()
    except ConfigurationError as error:
        return wrong("port", str(error), f"end what listens there (it may be this gateway), or take another {name}")
    return ok("port", f"{host}:{port} is free")


def _files(settings: Settings) -> Finding:
    needed = num_files(settings)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= needed:
        return ok("files", f"{needed:,} open files are needed, and allowed")
    told = f"{needed:,} open files are needed, and {hard:,} allowed: there will be fewer connections"
    return warning("files", told, f"ulimit -n {needed} (LimitNOFILE= of a unit), or a lower SEARCHR1_MAX_CONNECTIONS")


def _memory(settings: Settings) -> list[Finding]:
    free = _free_bytes()
    if free is None:
        return []
    needed = 0.0
    if settings.redis_url is None:
        needed += (settings.run_memory_mib + settings.cache_memory_mib) * _MIB
    if settings.engine_url is None and settings.kv_cache_gib is not None:
        needed += settings.kv_cache_gib * _GIB
    told = f"{needed / _GIB:.1f} GiB may be used for what is kept, and {free / _GIB:.1f} GiB are free"
    if needed > free:
        names = "SEARCHR1_KV_CACHE_GIB, SEARCHR1_RUN_MEMORY_MIB or SEARCHR1_CACHE_MEMORY_MIB"
        return [wrong("memory", told, f"lower {names}")]
    return [ok("memory", told)]


def _disk(settings: Settings) -> list[Finding]:
    if settings.workers == 1:
        return []
    folder = tempfile.gettempdir()
    free_mib, needed_mib = shutil.disk_usage(folder).free / _MIB, _METRICS_MIB * settings.workers
    told = f"{folder} has {free_mib:,.0f} MiB free, and the workers' metrics may take {needed_mib}"
    if free_mib < needed_mib:
        return [wrong("disk", told, "make room, or set TMPDIR")]
    return [ok("disk", told)]


def _free_bytes() -> int | None:
    """Return the memory that could be had, where the system tells."""
    try:
        lines = _MEMINFO.read_text("ascii").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)
