"""The ids by which engines know runs and tenants."""

import re

from hypothesis import given
from hypothesis import strategies as st

from searchr1.gateway.access.pseudonyms import Pseudonyms
from searchr1.identity import ANYONE, Caller

ACME, OTHER = Caller(tenant="acme", key_id="k1"), Caller(tenant="other", key_id="k1")
SAFE = re.compile(r"[a-z0-9-]{1,128}")


@given(st.text(), st.text(), st.text(), st.text())
def test_another_run_or_tenant_has_another_session(tenant: str, run: str, other_tenant: str, other_run: str) -> None:
    names = Pseudonyms("secret")
    one = names.session(Caller(tenant=tenant), run)
    two = names.session(Caller(tenant=other_tenant), other_run)
    assert (one == two) == ((tenant, run) == (other_tenant, other_run))
    assert SAFE.fullmatch(one)


def test_an_id_tells_nothing_and_holds_for_one_secret() -> None:
    names = Pseudonyms("secret")
    assert names.session(ACME, "run_1") == Pseudonyms("secret").session(ACME, "run_1")
    assert names.session(ACME, "run_1") != Pseudonyms("another").session(ACME, "run_1")
    assert Pseudonyms().session(ACME, "run_1") != Pseudonyms().session(ACME, "run_1")
    for made in (names.session(ACME, "run_1"), names.cache_salt(ACME)):
        assert "acme" not in made
        assert "run_1" not in made


def test_a_salt_is_a_tenants_whatever_the_key() -> None:
    names = Pseudonyms("secret")
    assert names.cache_salt(ACME) == names.cache_salt(Caller(tenant="acme", key_id="k2"))
    assert len({names.cache_salt(caller) for caller in (ACME, OTHER, ANYONE)}) == 3
    assert SAFE.fullmatch(names.cache_salt(ACME))


def test_a_key_without_a_tenant_shares_no_salt() -> None:
    names = Pseudonyms("secret")
    salts = {names.cache_salt(caller) for caller in (Caller(key_id="k1"), Caller(key_id="k2"), Caller("k1"), ANYONE)}
    assert len(salts) == 4
