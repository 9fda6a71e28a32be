"""Probes. A passed probe returns 200; a failed one is a problem with its reason."""

from fastapi import APIRouter

from polymodal.app.api.dependencies import ServiceDep
from polymodal.app.api.examples import explained
from polymodal.app.api.schemas import Health
from polymodal.app.serving.service import NotReady, Service, Stalled

router = APIRouter(tags=["health"])


@router.get("/livez", operation_id="livez", summary="Should this process live on?", responses=explained(Stalled))
async def livez(service: ServiceDep) -> Health:
    """The process answers, and its inference worker does not hang. When this fails, restart the process."""
    service.check_worker()
    return _passed(service)


@router.get("/startupz", operation_id="startupz", summary="Has it started?", responses=explained(NotReady))
async def startupz(service: ServiceDep) -> Health:
    """The models are loaded and agree with their golden inputs; stays so while draining."""
    service.check_started()
    return _passed(service)


@router.get("/healthz", operation_id="healthz", summary="The same as /readyz", responses=explained(NotReady, Stalled))
@router.get("/readyz", operation_id="readyz", summary="May requests come?", responses=explained(NotReady, Stalled))
async def readyz(service: ServiceDep) -> Health:
    """Started, not draining, and the inference worker does not hang. When this fails, send requests elsewhere."""
    service.check_ready()
    service.check_worker()
    return _passed(service)


def _passed(service: Service) -> Health:
    return Health(status="ok", state=service.state, models=[model.name for model in service.models])
