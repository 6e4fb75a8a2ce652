"""``POST /admin/reload``: new weights in the served model, while it serves."""

import asyncio
import hmac
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Security
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from searchr1.engines.base import TakesWeights
from searchr1.errors import ConfigurationError, EngineError
from searchr1.gateway.access.auth import Credentials, presented_key
from searchr1.gateway.errors import ApiError, engine_status, invalid
from searchr1.gateway.openapi import ERRORS
from searchr1.gateway.routes.guarded import GuardedRoute
from searchr1.gateway.runs.events import engine_code
from searchr1.gateway.services import services_of
from searchr1.tokenizer import Tokenizer

router = APIRouter(route_class=GuardedRoute)
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


async def require_admin(request: Request, credentials: Annotated[Credentials, Security(_BEARER)] = None) -> None:
    """Refuse a request that does not carry the admin key."""
    _require_admin(services_of(request).settings.admin_key, presented_key(credentials))


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


def _require_admin(key: SecretStr | None, presented: bytes) -> None:
    if key is None:
        raise ApiError(403, "This server has no admin key: set SEARCHR1_ADMIN_KEY.", code="permission_denied")
    if not presented or not hmac.compare_digest(presented, key.get_secret_value().encode()):
        raise ApiError(401, "The admin key is missing or wrong.", code="invalid_api_key")


def _check_folder(folder: Path, served: Tokenizer) -> None:
    try:
        if not any(folder.glob("*.safetensors")):
            raise invalid(f"{folder} holds no *.safetensors.", param="folder")
        tokenizer = Tokenizer.load(str(folder))
    except (OSError, ValueError, ConfigurationError) as error:
        raise invalid(f"{folder} is not a checkpoint folder: {error}", param="folder") from error
    if not tokenizer.same_as(served):
        raise invalid(f"{folder} has another tokenizer than the served model.", param="folder")
