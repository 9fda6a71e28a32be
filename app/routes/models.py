"""GET /v1/models: what is served, what it accepts, and how good it is."""

from fastapi import APIRouter

from app.dependencies import ServiceDep, SettingsDep
from app.errors import explained
from app.schemas import ModelDetail, Models, ModelSummary
from app.service import NotReady, UnknownModel

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get(
    "",
    operation_id="listModels",
    summary="The served models",
    responses=explained(NotReady),
    response_model_exclude_none=True,
)
async def list_models(service: ServiceDep, settings: SettingsDep) -> Models:
    """Labels, accepted inputs with their limits, and versions; the first model is the default one."""
    default = service.describe().name
    return Models(default=default, models=[ModelSummary.of(each, settings) for each in service.models])


@router.get(
    "/{name}",
    operation_id="getModel",
    summary="One model with its card",
    responses=explained(UnknownModel, NotReady),
    response_model_exclude_none=True,
)
async def get_model(name: str, service: ServiceDep, settings: SettingsDep) -> ModelDetail:
    """Everything about one model, with its card and its measured quality."""
    return ModelDetail.of(service.describe(name), settings)
