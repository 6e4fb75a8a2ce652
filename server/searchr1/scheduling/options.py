"""What an operator may set of scheduling."""

from dataclasses import dataclass

from searchr1.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulingOptions:
    """Bounds and weights of scheduling."""

    max_runs: int | None = None
    """Admitted runs at once, paused ones included; the only bound where no replica tells its capacity."""
    max_queued: int = 1000
    """Runs that may wait for their start."""
    max_queued_per_tenant: int = 500
    max_pause_s: float = 30.0
    """Time that a run may wait for room in the middle, in all its turns together; then it takes its turn regardless."""
    growth_quantile: float = 0.5
    """Share of ended runs that grew by no more than what is expected of a run."""
    first_growth_tokens: int = 2400
    """Growth reserved for a run before enough runs have ended to tell. Too much costs a slow start, too little a cache
    that is overrun by the first rush."""
    tenant_room_share: float = 0.6
    """Part of all room that one tenant may hold while others are about; from a half to 1, which bounds nobody."""
    wait_s_per_token: float = 0.003
    """Seconds for which each token that a run needs makes it count as having come later than others of its key: short
    runs pass long ones, but none that came longer ago than the difference is worth."""
    prefix_worth: float = 8.0
    """Tokens of room that a replica may lack to another for each token of a run's prefix that it has in its cache."""

    def __post_init__(self) -> None:
        """Raises ``ConfigurationError`` for what cannot work."""
        if self.max_runs is not None and self.max_runs < 1:
            raise ConfigurationError(f"max_runs is {self.max_runs}; at least one run must be allowed")
        if min(self.max_queued, self.max_queued_per_tenant, self.first_growth_tokens) < 0:
            raise ConfigurationError("bounds of the queue and the first growth must not be negative")
        if not 0 <= self.growth_quantile <= 1:
            raise ConfigurationError(f"growth_quantile is {self.growth_quantile}; it is a share between 0 and 1")
        if not 0.5 <= self.tenant_room_share <= 1:
            raise ConfigurationError(f"tenant_room_share is {self.tenant_room_share}; it is from a half to 1")
        if min(self.max_pause_s, self.prefix_worth, self.wait_s_per_token) < 0:
            raise ConfigurationError("max_pause_s, prefix_worth and wait_s_per_token must not be negative")
