"""The tiny bundle in the hands of whoever wants to break it."""

import hashlib
from pathlib import Path

import pytest

from polymodal.model import Network, load_bundle


@pytest.fixture(scope="session")
def predictors(tiny_bundle) -> dict[str, Network]:
    """The tiny bundle in each runtime that computes in float32."""
    return {runtime: load_bundle(tiny_bundle, runtime=runtime, threads=1) for runtime in ("onnx", "torch")}


@pytest.fixture(scope="session")
def int8_predictor(tiny_bundle) -> Network:
    """The tiny bundle in 8 bits."""
    return load_bundle(tiny_bundle, runtime="onnx-int8", threads=1)


@pytest.fixture(params=["onnx-int8", "onnx", "torch"])
def predictor(request, predictors, int8_predictor) -> Network:
    return {**predictors, "onnx-int8": int8_predictor}[request.param]


def _seal(folder: Path) -> None:
    """Sign what is there now, as somebody would who wants a changed bundle to be served."""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    lines = [
        f"{hashlib.sha256((folder / file).read_bytes()).hexdigest()}  {file}\n"
        for file in files
        if file != "SHA256SUMS"
    ]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


@pytest.fixture
def seal():
    """`seal(folder)` records the digests of a changed bundle anew."""
    return _seal


@pytest.fixture
def exported():
    """`exported(module, feed, names, free)` exports as training does; what comes back runs the graph in ONNX Runtime."""
    import onnxruntime
    import torch

    from polymodal.model.runtimes.onnx_runtime import is_unused
    from polymodal.model.training.export import export_graph

    def export(module, feed, names, free):
        graph = export_graph(module, feed, names, free)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        weights = {
            name: each.numpy()
            for name, each in module.state_dict().items()
            if not name.endswith("num_batches_tracked") and not is_unused(graph, name)
        }
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(each) for each in weights.values()]
        options.add_external_initializers(list(weights), values)
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return lambda batch: torch.from_numpy(
            session.run(None, {name: each.numpy() for name, each in batch.items()})[0]
        )

    return export
