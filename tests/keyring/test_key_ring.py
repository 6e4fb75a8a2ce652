"""The text of a key, what is kept of it, and which key a text is."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.keyring.key_ring import KeyRing
from searchr1.keyring.key_text import digest_of, key_text, new_id, new_secret, parts_of
from searchr1.keyring.stored_key import StoredKey, StoredLimits, made_key

NOW = 1_800_000_000
TEXT, KEY = made_key("one", now=NOW, tenant="acme", limits=StoredLimits(concurrent_runs=2))
OTHER_TEXT, OTHER = made_key("two", now=NOW)
RING = KeyRing([KEY, OTHER])


def changed(**fields: object) -> bytes:
    """The record of ``KEY`` with other fields."""
    record: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(KEY))
    return msgspec.json.encode({**record, **fields})


def test_a_text_is_the_key_that_it_was_made_with() -> None:
    assert RING.match(TEXT.encode()) is KEY
    assert RING.match(OTHER_TEXT.encode()) is OTHER


def test_the_secret_of_one_key_does_not_open_another() -> None:
    parts = parts_of(OTHER_TEXT.encode())
    assert parts is not None
    assert RING.match(key_text(KEY.id, parts[1].decode()).encode()) is None
    assert RING.match(key_text(new_id(), parts[1].decode()).encode()) is None


@given(st.integers(0, len(TEXT) - 1), st.characters(max_codepoint=255))
def test_a_text_with_another_character_opens_nothing(place: int, other: str) -> None:
    text = TEXT[:place] + other + TEXT[place + 1 :]
    assert (RING.match(text.encode("latin-1")) is KEY) == (text == TEXT)


@given(st.binary(max_size=100))
def test_no_other_bytes_open_anything(presented: bytes) -> None:
    assert RING.match(presented) is None


def test_an_unknown_id_is_compared_as_a_known_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """By construction: the same hash of as many bytes, and the same constant-time comparison."""
    hashed: list[int] = []
    compared: list[tuple[int, int]] = []

    def digest(salt: bytes, secret: bytes) -> bytes:
        hashed.append(len(salt + secret))
        return digest_of(salt, secret)

    def equal(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return one == other

    monkeypatch.setattr("searchr1.keyring.key_ring.digest_of", digest)
    monkeypatch.setattr("searchr1.keyring.key_ring.hmac.compare_digest", equal)
    for key_id in (KEY.id, new_id()):
        assert RING.match(key_text(key_id, new_secret()).encode()) is None
    assert hashed == [68, 68]
    assert compared == [(32, 32), (32, 32)]


def test_nothing_that_is_kept_holds_the_secret() -> None:
    secret = TEXT.rpartition("_")[2]
    assert secret not in msgspec.json.encode(KEY).decode()
    for shown in (repr(KEY), str(KEY), repr(RING)):
        assert secret not in shown
        assert KEY.digest not in shown
        assert KEY.salt not in shown


def test_two_keys_have_nothing_in_common() -> None:
    assert len({KEY.id, OTHER.id, KEY.salt, OTHER.salt, KEY.digest, OTHER.digest, TEXT, OTHER_TEXT}) == 8


def test_a_record_comes_back_whole() -> None:
    assert msgspec.json.decode(msgspec.json.encode(KEY), type=StoredKey) == KEY


@pytest.mark.parametrize(
    "fields",
    [
        {"scopes": []},
        {"scopes": ["root"]},
        {"scopes": ["read", "read"]},
        {"name": ""},
        {"name": "a\nb"},
        {"tenant": " acme"},
        {"id": "../../etc/passwd"},
        {"id": KEY.id + "\n"},
        {"digest": "00"},
        {"salt": KEY.salt.upper()},
        {"expires_at": -1},
        {"expires_at": "tomorrow"},
        {"limits": {"concurent_runs": 2}},
        {"limits": {"concurrent_runs": 0}},
        {"limits": {"requests_per_minute": 1.5}},
        {"expires": NOW},
    ],
)
def test_a_record_that_is_wrong_or_says_more_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(changed(**fields), type=StoredKey)
    assert KEY.digest not in str(caught.value)


@given(st.integers(0, 2 * NOW), st.none() | st.integers(0, 2 * NOW), st.none() | st.integers(0, 2 * NOW))
def test_a_key_is_active_until_it_expires_or_is_revoked(
    now: int, expires_at: int | None, revoked_at: int | None
) -> None:
    key = msgspec.structs.replace(KEY, expires_at=expires_at, revoked_at=revoked_at)
    is_active = revoked_at is None and (expires_at is None or now < expires_at)
    assert (key.state(now) == "active") == is_active
