"""Checks of settings that say who may call, and where: of those that must fit together."""

from collections.abc import Mapping, Sequence

from pydantic import SecretStr

from searchr1.errors import ConfigurationError


def check_weights(
    weights: Mapping[str, float], of_tenants: Mapping[str, Sequence[SecretStr]], *, has_stored_keys: bool
) -> None:
    """Refuse weights of tenants that can't be there. Raises ``ConfigurationError``."""
    # Stored keys bring tenants of their own, and new ones as time goes by.
    if not has_stored_keys and not weights.keys() <= of_tenants.keys():
        raise ConfigurationError("SEARCHR1_TENANT_WEIGHTS names a tenant that has no key in SEARCHR1_TENANT_KEYS")


def check_ports(port: int, ops_port: int | None, ops_host: str | None) -> None:
    """Refuse a port of operators that is the clients' too, or a host for none. Raises ``ConfigurationError``."""
    if ops_port is None and ops_host is not None:
        raise ConfigurationError("SEARCHR1_OPS_HOST is set without SEARCHR1_OPS_PORT: name the port, too")
    if ops_port is not None and ops_port == port != 0:
        raise ConfigurationError(f"SEARCHR1_OPS_PORT is {ops_port}, and so is SEARCHR1_PORT: give each its own")
