"""Fixtures that load, change and export the tiny bundle."""

import pytest

from polymodal.model import Network, load_bundle
from tests.bundle_files import update_sums


@pytest.fixture(scope="session")
def predictors(tiny_bundle) -> dict[str, Network]:
    """Return the tiny bundle in each runtime that computes in float32."""
    return {runtime: load_bundle(tiny_bundle, runtime=runtime, threads=1) for runtime in ("onnx", "torch")}


@pytest.fixture(scope="session")
def int8_predictor(tiny_bundle) -> Network:
    """Return the tiny bundle in 8 bits."""
    return load_bundle(tiny_bundle, runtime="onnx-int8", threads=1)


@pytest.fixture(params=["onnx-int8", "onnx", "torch"])
def predictor(request, predictors, int8_predictor) -> Network:
    return {**predictors, "onnx-int8": int8_predictor}[request.param]


@pytest.fixture
def seal():
    """Return `seal(folder)`, which records the digests of a changed bundle again."""
    return update_sums


@pytest.fixture
def exported():
    """Return `exported(module, feed, names, free)`, which exports as training does and returns a function that runs the graph."""
    import onnxruntime
    import torch

    from polymodal.model.runtimes.onnx_runtime import is_unused
    from polymodal.model.training.export import export_graph

    def export(module, feed, names, free):
        graph = export_graph(module, feed, names, free)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        weights = {
            name: weight.numpy()
            for name, weight in module.state_dict().items()
            if not name.endswith("num_batches_tracked") and not is_unused(graph, name)
        }
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(weight) for weight in weights.values()]
        options.add_external_initializers(list(weights), values)
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return lambda batch: torch.from_numpy(
            session.run(None, {name: tensor.numpy() for name, tensor in batch.items()})[0]
        )

    return export
