"""The check of settings for several workers."""

from searchr1.errors import ConfigurationError


def check_workers(workers: int, *, engine_url: str | None, has_redis: bool, max_concurrent_runs: int) -> None:
    """Refuse several workers where each would have something to itself that all must share.

    Raises:
        ConfigurationError: they would.
    """
    if workers == 1:
        return
    several = f"SEARCHR1_WORKERS is {workers}"
    if engine_url is None:
        raise ConfigurationError(
            f"{several}, and without SEARCHR1_ENGINE_URL each worker would start an engine of its own: "
            "name a running vLLM, or serve with one worker"
        )
    if not has_redis:
        raise ConfigurationError(
            f"{several}, and without SEARCHR1_REDIS_URL each worker would keep runs, budgets and cached searches "
            "that no other one sees: name a Redis, or serve with one worker"
        )
    if max_concurrent_runs < workers:
        raise ConfigurationError(
            f"{several}, and SEARCHR1_MAX_CONCURRENT_RUNS is {max_concurrent_runs}: each worker must be allowed a run"
        )
