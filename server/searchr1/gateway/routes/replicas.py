"""``/admin/replicas``: the replicas of a model's engine, seen, added, drained and removed while they serve."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from searchr1.breaker import BreakerState
from searchr1.engines.base import ReplicaState, ReplicaView, TakesReplicas
from searchr1.engines.vllm.address import ServerAddress
from searchr1.errors import ConfigurationError
from searchr1.gateway.errors import ApiError, invalid
from searchr1.gateway.openapi import ERRORS
from searchr1.gateway.routes.admin import ALONE, require_admin
from searchr1.gateway.routes.guarded import GuardedRoute
from searchr1.gateway.served_model import ServedModel
from searchr1.gateway.services import services_of

router = APIRouter(
    prefix="/admin/replicas", route_class=GuardedRoute, responses=ERRORS, dependencies=[Depends(require_admin)]
)

MAX_REPLICAS = 1024
MAX_DRAIN_S = 3600.0

Name = Annotated[str, Path(max_length=256, examples=["10.0.0.5:8000"], description="A replica's `name`.")]
Model = Annotated[str | None, Query(max_length=512, description="The served model; by default the first.")]
Within = Annotated[
    float,
    Query(
        ge=0,
        le=MAX_DRAIN_S,
        allow_inf_nan=False,
        description="Seconds for which its completions may go on, before others take them up in their middle.",
    ),
]


class ReplicaInfo(BaseModel):
    """One replica as it is now; it holds no credentials."""

    name: str
    """What routes call it: its address without `http://`."""
    address: str
    model: str
    """The served model that it belongs to."""
    state: ReplicaState
    healthy: bool
    """Whether runs may be placed on it now."""
    draining: bool
    capacity_tokens: int | None
    """Tokens that its KV cache holds; null where it does not tell."""
    used_tokens: int | None
    num_in_flight: int
    """Completions of this gateway that are open on it."""
    num_waiting: int
    """Requests in its queue, as it last told; others' too."""
    breaker: BreakerState


class ReplicaList(BaseModel):
    """Replicas of one model, or of all."""

    data: list[ReplicaInfo]


class NewReplica(BaseModel):
    """A server to take in."""

    model_config = ConfigDict(extra="forbid")

    address: str = Field(
        min_length=1,
        max_length=256,
        description="As in `SEARCHR1_ENGINE_URL`; it is asked with the key of the model's engine.",
        examples=["http://10.0.0.5:8000"],
    )
    model: str | None = Field(default=None, max_length=512, description="The served model; by default the first.")


@router.get("", summary="List replicas")
async def list_replicas(request: Request, model: Model = None) -> ReplicaList:
    """List the replicas of the named model, or of all models that have any."""
    models = services_of(request).models
    if model is not None:
        asked = [models.named(model)]
    else:
        asked = [one for one in models if isinstance(one.engine, TakesReplicas)]
    return ReplicaList(data=[_info(view, one) for one in asked for view in _pool_of(one).replicas])


@router.post("", summary="Add a replica", dependencies=ALONE)
async def add(request: Request, body: NewReplica) -> ReplicaInfo:
    """Take one more server in, or again one that is drained. It gets runs once it is well."""
    model = services_of(request).models.named(body.model)
    pool = _pool_of(model)
    if len(pool.replicas) >= MAX_REPLICAS:
        raise invalid(f"The model has {MAX_REPLICAS} replicas already, the most that are taken.", param="address")
    try:
        pool.add(body.address)
        name = ServerAddress.parse(body.address).url
    except ConfigurationError as error:
        message = f"The address can't be used: {error}."
        raise invalid(message, param="address", code="unusable_address") from error
    return _info(_view(pool, name), model)


@router.post("/{name:path}/drain", summary="Drain a replica", dependencies=ALONE)
async def drain(request: Request, name: Name, model: Model = None, within_s: Within = 0.0) -> ReplicaInfo:
    """Give it no more runs. It stays in the list, and may be shut down once `num_in_flight` is 0."""
    return _begin_drain(request, name, model, within_s, leaves=False)


@router.post("/{name:path}/admit", summary="Take a drained replica in again", dependencies=ALONE)
async def admit(request: Request, name: Name, model: Model = None) -> ReplicaInfo:
    """Give it runs again, once it is well."""
    served = services_of(request).models.named(model)
    pool = _pool_of(served)
    view = _view(pool, name)
    pool.add(view.name)
    return _info(_view(pool, name), served)


@router.delete("/{name:path}", summary="Remove a replica", status_code=202, dependencies=ALONE)
async def remove(request: Request, name: Name, model: Model = None, within_s: Within = 0.0) -> ReplicaInfo:
    """Drain it, and forget it once nothing of this gateway runs on it. One that is added meanwhile stays."""
    return _begin_drain(request, name, model, within_s, leaves=True)


def _begin_drain(request: Request, name: str, model: str | None, within_s: float, *, leaves: bool) -> ReplicaInfo:
    served = services_of(request).models.named(model)
    pool = _pool_of(served)
    view = _view(pool, name)
    if view.healthy and not any(one.healthy for one in pool.replicas if one.name != view.name):
        message = "It is the only replica that takes runs, so they would be lost: add or admit another one first."
        raise ApiError(409, message, code="last_replica")
    pool.begin_drain(view.name, within_s=within_s, leaves=leaves)
    return _info(_view(pool, name), served)


def _pool_of(model: ServedModel) -> TakesReplicas:
    """Return a model's engine. Raises ``ApiError`` 409 where it is no pool of replicas."""
    if not isinstance(model.engine, TakesReplicas):
        message = (
            f"The model {model.name!r} has one engine and no replicas: give it several addresses, or set "
            "SEARCHR1_ENGINE=vllm-pool."
        )
        raise ApiError(409, message, code="engine_not_a_pool")
    return model.engine


def _view(pool: TakesReplicas, name: str) -> ReplicaView:
    for view in pool.replicas:
        if name in (view.name, _short(view)):
            return view
    message = f"There is no replica {name[:200]!r}: see GET /admin/replicas."
    raise ApiError(404, message, code="replica_not_found")


def _short(view: ReplicaView) -> str:
    return view.name.partition("://")[2]


def _info(view: ReplicaView, model: ServedModel) -> ReplicaInfo:
    return ReplicaInfo(
        name=_short(view),
        address=view.name,
        model=model.name,
        state=view.state,
        healthy=view.healthy,
        draining=view.state == "draining",
        capacity_tokens=view.capacity_tokens,
        used_tokens=view.used_tokens,
        num_in_flight=view.num_in_flight,
        num_waiting=view.num_waiting,
        breaker=view.breaker,
    )
