"""The answer of ``/v1/models``."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """A served model."""

    model_config = ConfigDict(extra="ignore")

    id: str
    object: Literal["model"] = "model"
    created: int
    """Unix time, seconds, at which the server began to serve it."""
    owned_by: str
    max_model_len: int | None = None
    """Length of its context, in tokens."""


class ModelList(BaseModel):
    """The served models."""

    model_config = ConfigDict(extra="ignore")

    object: Literal["list"] = "list"
    data: list[Model]
