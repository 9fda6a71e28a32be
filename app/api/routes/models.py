"""GET /v1/models: what is served, what it accepts, and how good it is."""

from fastapi import APIRouter

from polymodal.app.api.dependencies import ServiceDep, SettingsDep
from polymodal.app.api.examples import explained
from polymodal.app.api.schemas import ModelDetail, ModelObject, Models, ModelSummary
from polymodal.app.serving.registry import UnknownModel
from polymodal.app.serving.service import NotReady

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get(
    "",
    operation_id="listModels",
    summary="The served models",
    responses=explained(NotReady),
    response_model_exclude_none=True,
)
async def list_models(service: ServiceDep, settings: SettingsDep) -> Models:
    """The labels, versions and accepted inputs, with their limits, of all models. The first model is the default one."""
    default = service.describe().name
    deployments = service.registry.deployments
    return Models(
        default=default,
        models=[ModelSummary.of(deployment.description, settings) for deployment in deployments],
        data=[ModelObject(id=deployment.description.name, created=deployment.loaded_at) for deployment in deployments],
    )


@router.get(
    "/{name}",
    operation_id="getModel",
    summary="One model with its card",
    responses=explained(UnknownModel, NotReady),
    response_model_exclude_none=True,
)
async def get_model(name: str, service: ServiceDep, settings: SettingsDep) -> ModelDetail:
    """All details of one model, including its card and its measured quality."""
    service.check_started()
    deployment = service.registry.resolve(name)
    return ModelDetail.served(deployment.description, settings, deployment.loaded_at)
