"""Registries: things of one kind by name, each declared in a module of its own."""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Generic, TypeVar

from searchr1.errors import ConfigurationError

T = TypeVar("T")


class Registry(Generic[T]):
    """Things of one kind by name. Some modules add them; these are imported at the first question.

    Args:
        kind: the word for one of them in errors: ``profile``.
        modules: the modules that declare them, as patterns: ``searchr1.loop.profiles.*``.
    """

    def __init__(self, kind: str, *modules: str) -> None:
        self._kind, self._modules = kind, modules
        self._things: Mapping[str, T] = {}  # sorted, and replaced as a whole: what `all` gave stays as it was
        self._imported = False

    def add(self, name: str, thing: T) -> None:
        """Make ``thing`` known as ``name``. Raises ``ValueError`` where another one has that name."""
        if self._things.get(name, thing) is not thing:
            raise ValueError(f"two {self._kind}s are called {name!r}")
        self._things = dict(sorted({**self._things, name: thing}.items()))

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that makes a thing known as ``name``. It raises as ``add`` does."""

        def decorate(thing: T) -> T:
            self.add(name, thing)
            return thing

        return decorate

    def named(self, name: str) -> T:
        """Return the thing called ``name``; without it raise ``ConfigurationError``, which lists the known names."""
        known = self.all()
        if name not in known:
            raise ConfigurationError(f"there is no {self._kind} {name!r}; there are {', '.join(known)}")
        return known[name]

    def all(self) -> Mapping[str, T]:
        """Return all things by name, sorted by it."""
        if not self._imported:
            for pattern in self._modules:
                _import(pattern)
            self._imported = True
        return self._things

    def copy(self) -> "Registry[T]":
        """Return a registry of the same things, to which a test can add its own."""
        other: Registry[T] = Registry(self._kind)
        other._things = self.all()
        return other


def _import(pattern: str) -> None:
    package = pattern.rpartition(".")[0]
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        if fnmatchcase(module.name, pattern):
            importlib.import_module(module.name)
