"""GET /metrics, for Prometheus."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from polymodal.app.api.dependencies import MetricsDep

router = APIRouter(tags=["metrics"])


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Measurements in Prometheus' text format",
    response_class=Response,
    responses={200: {"description": "The measurements", "content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(metrics: MetricsDep) -> Response:
    """Requests, durations, stages, the queue, batches, refusals, workers and served bundles."""
    return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)
