"""``POST /admin/reload``: new weights in the served model, while it serves."""

import asyncio
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Security
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from searchr1.engines.base import TakesWeights
from searchr1.errors import ConfigurationError, EngineError
from searchr1.gateway.access.auth import Credentials, check_admin
from searchr1.gateway.errors import ApiError, engine_status, invalid
from searchr1.gateway.openapi import ERRORS
from searchr1.gateway.runs.events import engine_code
from searchr1.gateway.services import services_of
from searchr1.tokenizer import Tokenizer

router = APIRouter()
_BEARER = HTTPBearer(auto_error=False, scheme_name="AdminKey", description="The server's admin key.")


class ReloadRequest(BaseModel):
    """A checkpoint folder to serve from now on."""

    model_config = ConfigDict(extra="forbid")

    folder: str = Field(
        min_length=1, max_length=4096, description="A checkpoint folder on the server, of the same architecture."
    )
    version: str | None = Field(
        default=None, min_length=1, max_length=128, description="What to call the weights; by default the folder."
    )


class Reloaded(BaseModel):
    """The weights that are served now."""

    folder: str
    policy_version: str


async def require_admin(request: Request, _: Annotated[Credentials, Security(_BEARER)] = None) -> None:
    """Refuse a request that does not carry the admin key."""
    check_admin(services_of(request).settings, request.headers.get("authorization"))


@router.post("/admin/reload", responses=ERRORS, summary="Serve new weights", dependencies=[Depends(require_admin)])
async def reload(request: Request, body: ReloadRequest) -> Reloaded:
    """Replace the weights of the engine in this process. Runs stand still meanwhile and go on; none is lost.

    Each run's trajectory tells the version that it ended with.
    """
    services = services_of(request)
    if not isinstance(services.engine, TakesWeights):
        message = "The engine runs elsewhere: reload it there. Only one that this server started takes new weights."
        raise ApiError(409, message, code="engine_not_ours")
    folder = Path(body.folder)
    await asyncio.to_thread(_check_folder, folder, services.tokenizer)
    version = body.version or body.folder
    try:
        await services.engine.take_weights(folder, version=version)
    except EngineError as error:
        code = engine_code(error)
        raise ApiError(engine_status(code), str(error), code=code) from error
    services.policy_version = version
    return Reloaded(folder=body.folder, policy_version=version)


def _check_folder(folder: Path, served: Tokenizer) -> None:
    try:
        if not any(folder.glob("*.safetensors")):
            raise invalid(f"{folder} holds no *.safetensors.", param="folder")
        tokenizer = Tokenizer.load(str(folder))
    except (OSError, ValueError, ConfigurationError) as error:
        raise invalid(f"{folder} is not a checkpoint folder: {error}", param="folder") from error
    if not tokenizer.same_as(served):
        raise invalid(f"{folder} has another tokenizer than the served model.", param="folder")
