"""``POST /admin/reload``: new weights in the served model, while it serves."""

import hmac
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Request, Security
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from searchr1.gateway.access.auth import Credentials, presented_key
from searchr1.gateway.errors import ApiError
from searchr1.gateway.openapi import ERRORS
from searchr1.gateway.reload import reload_weights
from searchr1.gateway.services import services_of

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


@router.post("/admin/reload", responses=ERRORS, summary="Serve new weights")
async def reload(
    request: Request,
    body: ReloadRequest,
    credentials: Annotated[Credentials, Security(_BEARER)] = None,
) -> Reloaded:
    """Replace the weights of the engine in this process. Runs stand still meanwhile and go on; none is lost.

    The folder is checked against the served checkpoint first. Weights that then do not work are taken back.

    Each run's trajectory tells the version that it ended with.
    """
    services = services_of(request)
    _require_admin(services.settings.admin_key, presented_key(credentials))
    version = body.version or body.folder
    await reload_weights(services, Path(body.folder), version)
    return Reloaded(folder=body.folder, policy_version=version)


def _require_admin(key: SecretStr | None, presented: bytes) -> None:
    if key is None:
        raise ApiError(403, "This server has no admin key: set SEARCHR1_ADMIN_KEY.", code="permission_denied")
    if not presented or not hmac.compare_digest(presented, key.get_secret_value().encode()):
        raise ApiError(401, "The admin key is missing or wrong.", code="invalid_api_key")
