"""The providers and index kinds that ``SEARCHR1_RETRIEVER`` can name, each declared in its own file.

One file makes one: an opener below ``@provider(…)``, in a module of ``retrieval/providers``, or in a module of
``retrieval/index`` whose name ends in ``_retriever``. Modules are found by name, so nothing else has to be changed::

    @provider("exa", form="exa:", key="required")
    async def open_exa(spec: ProviderSpec) -> ExaProvider:
        highlights = spec.take("contents").get("contents", "text") == "highlights"
        return ExaProvider(spec.require_secret(), max_chars=spec.passage_chars, highlights=highlights)

These modules are imported to read one declaration: what takes long to import (numpy, an SDK), an opener imports itself.
"""

import contextlib
import functools
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, Protocol
from urllib.parse import parse_qsl

from searchr1.errors import ConfigurationError
from searchr1.registry import Registry
from searchr1.retrieval.base import Retriever
from searchr1.retrieval.keys import usable_key

KeyUse = Literal["none", "optional", "required"]


@dataclass(frozen=True, slots=True)
class ProviderSpec:
    """One provider as the operator names it."""

    kind: str
    """The provider's name."""
    target: str = field(repr=False)
    """The part after the name: a path, or a URL without its options."""
    options: Mapping[str, str]
    secret: str | None = field(repr=False)
    timeout_s: float
    passage_chars: int
    is_local: bool = False
    """True for an index on this machine: there is nothing to retry, to pay or to cache."""

    def take(self, *names: str) -> dict[str, str]:
        """Return the options called ``names``. Raises ``ConfigurationError`` for any other option."""
        if unknown := sorted(set(self.options) - set(names)):
            known = f"it takes {', '.join(names)}" if names else "it takes none"
            raise ConfigurationError(f"{self.kind}: has no option {unknown[0]!r}; {known}")
        return dict(self.options)

    def require_secret(self) -> str:
        """Return the provider's key. Raises ``ConfigurationError`` without one."""
        if not self.secret:
            raise ConfigurationError(f"{self.kind}: needs a key; set {key_variable(self.kind)}")
        return self.secret


class OpenRetriever(Retriever, Protocol):
    """A retriever that holds something open."""

    async def aclose(self) -> None:
        """Let go of what was opened."""
        ...


Opener = Callable[[ProviderSpec], Awaitable[OpenRetriever]]


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider's declaration."""

    name: str
    form: str
    """The setting that names it, as errors and docs show it: ``index:PATH``."""
    open: Opener
    needs_target: bool
    key: KeyUse
    is_local: bool
    schemes: tuple[str, ...]
    """URL schemes that name it by themselves; its target is then the whole setting."""


PROVIDERS: Registry[Provider] = Registry(
    "provider", "searchr1.retrieval.providers.*", "searchr1.retrieval.index.*_retriever"
)


def provider(
    name: str,
    *,
    form: str,
    needs_target: bool = False,
    key: KeyUse = "none",
    is_local: bool = False,
    schemes: tuple[str, ...] = (),
) -> Callable[[Opener], Opener]:
    """Declare the decorated opener as the provider ``name``; see ``Provider`` for the rest.

    A key is read from ``SEARCHR1_<NAME>_API_KEY``; one that is ``required`` is there when the opener is called.
    Raises ``ValueError`` for a name that is taken.
    """

    def declare(opener: Opener) -> Opener:
        PROVIDERS.add(name, Provider(name, form, opener, needs_target, key, is_local, schemes))
        return opener

    return declare


@functools.cache
def providers() -> Mapping[str, Provider]:
    """Return all providers by name, in alphabetical order of their forms."""
    return MappingProxyType({one.name: one for one in sorted(PROVIDERS.all().values(), key=lambda one: one.form)})


def forms() -> str:
    """Return the forms of all providers, as errors list them."""
    return ", ".join(one.form for one in providers().values())


def key_variable(name: str) -> str:
    """Return the environment variable that holds the key of the provider ``name``."""
    return f"SEARCHR1_{name.upper()}_API_KEY"


def parse_spec(
    spec: str, *, secrets: Mapping[str, str] | None = None, timeout_s: float = math.inf, passage_chars: int = 2000
) -> ProviderSpec:
    """Read one provider's setting. Raises ``ConfigurationError`` for an unknown one, or an unusable key."""
    name, colon, rest = spec.strip().partition(":")
    options: dict[str, str] = {}
    found = next((one for one in providers().values() if name in one.schemes), None)
    if found is not None:
        target = spec.strip()
    else:
        found = providers().get(name)
        target, _, query = rest.partition("?")
        options = dict(parse_qsl(query, keep_blank_values=True))
    if found is None or not colon or (found.needs_target and not target):
        raise ConfigurationError(f"no retriever is called {name + colon!r}; use one of {forms()}")
    secret = (secrets or {}).get(found.name)
    key = None if secret is None else usable_key(secret, found.name)
    return ProviderSpec(found.name, target, options, key, timeout_s, passage_chars, found.is_local)


@contextlib.asynccontextmanager
async def open_provider(spec: ProviderSpec) -> AsyncIterator[Retriever]:
    """Open what ``spec`` names and close it at the end of the block.

    Raises:
        ConfigurationError: an option or a key is missing or cannot work.
        CorpusError: an index cannot be opened.
    """
    found = providers()[spec.kind]
    if found.key == "required":
        spec.require_secret()
    async with contextlib.aclosing(await found.open(spec)) as retriever:
        yield retriever
