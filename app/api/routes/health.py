"""Probes. A passed probe returns 200; a failed one returns a problem with the reason."""

from fastapi import APIRouter

from polymodal.app.api.dependencies import ServiceDep
from polymodal.app.api.examples import explained
from polymodal.app.api.schemas import Health
from polymodal.app.probes import HEALTHZ, LIVEZ, READYZ, STARTUPZ
from polymodal.app.serving.service import NotReady, Service, Stalled

router = APIRouter(tags=["health"])


@router.get(LIVEZ, operation_id="livez", summary="Whether the process works", responses=explained(Stalled))
async def livez(service: ServiceDep) -> Health:
    """The process responds and its inference worker does not hang. Restart the process when this probe fails."""
    service.check_worker()
    return _passed(service)


@router.get(STARTUPZ, operation_id="startupz", summary="Whether the service has started", responses=explained(NotReady))
async def startupz(service: ServiceDep) -> Health:
    """The models are loaded and reproduce their golden outputs. Also passes while the service drains."""
    service.check_started()
    return _passed(service)


@router.get(HEALTHZ, operation_id="healthz", summary="The same as /readyz", responses=explained(NotReady, Stalled))
@router.get(
    READYZ, operation_id="readyz", summary="Whether requests are accepted", responses=explained(NotReady, Stalled)
)
async def readyz(service: ServiceDep) -> Health:
    """The service has started, does not drain, and its inference worker does not hang. Send no requests while this probe fails."""
    service.check_ready()
    service.check_worker()
    return _passed(service)


def _passed(service: Service) -> Health:
    return Health(status="ok", state=service.state, models=[model.name for model in service.models])
