"""Keys of providers, as they can be sent in a header."""

from searchr1.errors import ConfigurationError


def usable_key(api_key: str, label: str) -> str:
    """Return the key without the white space around it, which secrets made by ``echo`` end in.

    Raises ``ConfigurationError`` for a key that is empty or no header can hold: the HTTP library would refuse it when
    it is sent, in an error that quotes it.
    """
    key = api_key.strip()
    if not key:
        raise ConfigurationError(f"{label} needs a key")
    if not (key.isascii() and key.isprintable()):
        raise ConfigurationError(f"the key of {label} cannot be sent: it must be printable ASCII")
    return key
