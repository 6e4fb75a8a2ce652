"""``/v1/models``, as the server answers it."""

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
    """Tokens of its context."""


class ModelList(BaseModel):
    """The served models."""

    model_config = ConfigDict(extra="ignore")

    object: Literal["list"] = "list"
    data: list[Model]
