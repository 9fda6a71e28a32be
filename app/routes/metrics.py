"""GET /metrics, for Prometheus."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from app.dependencies import MetricsDep
from app.siblings import Siblings, merged

router = APIRouter(tags=["metrics"])


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Measurements in Prometheus' text format",
    response_class=Response,
    responses={200: {"description": "The measurements", "content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request, metrics: MetricsDep) -> Response:
    """Requests, durations, stages, the queue, batches, refusals and the served bundles, of all worker processes."""
    content = generate_latest(metrics.registry)
    siblings: Siblings | None = request.app.state.siblings
    if siblings is not None:
        content = merged([content.decode(), *await siblings.gathered()])
    return Response(content, media_type=CONTENT_TYPE_LATEST)
