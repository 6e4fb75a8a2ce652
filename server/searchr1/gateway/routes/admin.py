"""``POST /admin/reload``: new weights in the served model, while it serves."""

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Security
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from searchr1.gateway.access.auth import Credentials, check_admin
from searchr1.gateway.errors import ApiError
from searchr1.gateway.openapi import ERRORS
from searchr1.gateway.reload import reload_weights
from searchr1.gateway.routes.guarded import GuardedRoute
from searchr1.gateway.services import services_of

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
    model: str | None = Field(default=None, description="The served model; by default the first.")


class Reloaded(BaseModel):
    """The weights that are served now."""

    model: str

    folder: str
    policy_version: str


async def require_admin(request: Request, _: Annotated[Credentials, Security(_BEARER)] = None) -> None:
    """Refuse a request that carries neither the admin key nor a stored one of the scope ``admin``."""
    check_admin(services_of(request), request.headers.get("authorization"))


def require_one_worker(request: Request) -> None:
    """Refuse, with ``ApiError`` 409, what one of several workers alone would know."""
    if services_of(request).settings.workers > 1:
        message = "Of several workers one alone would know of it: ask a gateway with one worker, or restart this one."
        raise ApiError(409, message, code="several_workers")


ALONE = [Depends(require_one_worker)]
"""Dependencies of a route that changes what the process alone keeps."""


@router.post(
    "/admin/reload",
    responses=ERRORS,
    summary="Serve new weights",
    dependencies=[Depends(require_admin), *ALONE],
)
async def reload(request: Request, body: ReloadRequest) -> Reloaded:
    """Replace the weights of the engine in this process. Runs stand still meanwhile and go on; none is lost.

    The folder is checked against the served checkpoint first. Weights that then do not work are taken back.

    Each run's trajectory tells the version that it ended with.
    """
    model = services_of(request).models.named(body.model)
    version = body.version or body.folder
    await reload_weights(model, Path(body.folder), version)
    return Reloaded(model=model.name, folder=body.folder, policy_version=version)
