"""The text of a key, ``sr1_ID_SECRET``, and the salted hash by which a secret is known again.

The id is public. The secret holds 256 random bits, so nobody finds it by trying, however fast its hash is computed.
"""

import base64
import hashlib
import re
import secrets

PREFIX = "sr1"
ID_CHARS = 16
ID_PATTERN = f"[a-z2-7]{{{ID_CHARS}}}"
_ID_BYTES = 10
_SECRET_BYTES = 32
_SALT_BYTES = 16
_TEXT = re.compile(f"{PREFIX}_({ID_PATTERN})_([a-z2-7]{{52}})".encode())


def new_id() -> str:
    """Return a new key's id, 16 characters."""
    return _base32(secrets.token_bytes(_ID_BYTES))


def new_secret() -> str:
    """Return a new key's secret, 52 characters."""
    return _base32(secrets.token_bytes(_SECRET_BYTES))


def new_salt() -> bytes:
    """Return a salt for the hash of one secret."""
    return secrets.token_bytes(_SALT_BYTES)


def key_text(key_id: str, secret: str) -> str:
    """Return what a client sends as its bearer token."""
    return f"{PREFIX}_{key_id}_{secret}"


def parts_of(text: bytes) -> tuple[str, bytes] | None:
    """Return the id and the secret of a key's text; None for what is no such text."""
    match = _TEXT.fullmatch(text)
    return None if match is None else (match[1].decode(), match[2])


def digest_of(salt: bytes, secret: bytes) -> bytes:
    """Return what is kept of a secret, 32 bytes."""
    return hashlib.sha256(salt + secret).digest()


def _base32(data: bytes) -> str:
    # No sign in it ends a word, so a double click takes the whole key.
    return base64.b32encode(data).decode().rstrip("=").lower()
