"""Addresses of vLLM servers as people write them."""

import pytest

from searchr1.engines.vllm.address import ServerAddress
from searchr1.errors import ConfigurationError


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000///", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/v1/completions", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/v1/chat/completions", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/v1/models", "http://127.0.0.1:8000"),
        ("  http://vllm:8000\n", "http://vllm:8000"),
        ("HTTP://VLLM:8000", "http://vllm:8000"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("localhost:8000/v1", "http://localhost:8000"),
        ("vllm.internal", "http://vllm.internal"),
        ("https://host/llm/v1", "https://host/llm"),
        ("https://host/v1beta", "https://host/v1beta"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("http://[fe80::1]/v1", "http://[fe80::1]"),
    ],
)
def test_is_taken_as_it_is_meant(written: str, url: str) -> None:
    assert ServerAddress.parse(written) == ServerAddress(url)
    assert ServerAddress.parse(written, "k") == ServerAddress(url, "Bearer k")


@pytest.mark.parametrize(
    ("written", "header"),
    [
        ("http://user:word@host:1/v1", "Basic dXNlcjp3b3Jk"),
        ("user:word@host:1", "Basic dXNlcjp3b3Jk"),
        ("http://us%65r:w%6Frd@host:1", "Basic dXNlcjp3b3Jk"),
        ("http://token@host:1", "Basic dG9rZW46"),
        ("http://:word@host:1", "Basic OndvcmQ="),
    ],
)
def test_a_name_and_a_password_become_a_header_and_leave_the_address(written: str, header: str) -> None:
    assert ServerAddress.parse(written) == ServerAddress("http://host:1", header)
    with pytest.raises(ConfigurationError, match="leave out one"):
        ServerAddress.parse(written, "k")


@pytest.mark.parametrize(
    "written",
    [
        "",
        "  ",
        "http://",
        "http:///v1",
        "http://s3cret@/v1",
        "ftp://s3cret@host",
        "unix:///s3cret.sock",
        "http://s3cret:x@host:port",
        "http://s3cret@host:99999",
        "http://s3cret@[::1",
        "http://s3cret@ho\nst",
        "http://s3cret@ho\tst",
        "http://s3cret @host",
        "http://s3cret@host\x00",
        "http://host?key=s3cret",
        "http://host/#s3cret",
    ],
)
def test_what_is_no_address_is_refused_without_being_quoted(written: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        ServerAddress.parse(written)
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize("key", ["", "s3cret\n", "s3cret\r\nX: y", "s3crét", "s3cret\x00", "s3cret\x7f", "日本"])
def test_a_key_that_no_header_can_carry_is_refused_without_being_quoted(key: str) -> None:
    with pytest.raises(ConfigurationError, match="no HTTP header can carry") as raised:
        ServerAddress.parse("http://host", key)
    assert "s3cr" not in str(raised.value)
