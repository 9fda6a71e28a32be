"""Use the generated client of openapi-python-client as its users do. Run by tests.generated.run: python_client.py ADDRESS IMAGE."""

import io
import sys
from pathlib import Path

from polymodal_client.api.classify import classify, classify_batch
from polymodal_client.api.embed import embed
from polymodal_client.api.health import readyz
from polymodal_client.api.metrics import metrics
from polymodal_client.api.models import get_model, list_models
from polymodal_client.models import (
    BatchBody,
    BatchItem,
    Classification,
    ClassifyBody,
    ClassifyForm,
    EmbedBody,
    Embedding,
    Problem,
)
from polymodal_client.types import File

from polymodal_client import Client

address, image = sys.argv[1], Path(sys.argv[2])
with Client(address) as client:
    ready = readyz.sync(client=client)
    assert ready.state == "ready", ready
    served = list_models.sync(client=client)
    assert served.default == "illustrations"
    detail = get_model.sync("illustrations", client=client)
    assert detail.card.startswith("# illustrations")
    assert "transport" in detail.labels

    text = classify.sync(client=client, body=ClassifyBody(text="a sailing dinghy", top_k=2))
    assert isinstance(text, Classification), text
    assert text.labels[0].label == "transport"
    assert len(text.labels) == 2

    file = File(io.BytesIO(image.read_bytes()), image.name, "image/png")
    form = ClassifyForm(image=file, text="a sailing dinghy", top_k=1)
    both = classify.sync(client=client, body=form, x_request_timeout_ms=9000)
    assert isinstance(both, Classification), both
    assert both.modalities == ["image", "text"]

    vectors = embed.sync(client=client, body=EmbedBody(text="a sailing dinghy"))
    assert isinstance(vectors, Embedding), vectors
    assert len(vectors.embeddings["text"]) == detail.embeddings.dimensions

    refused = classify.sync(client=client, body=ClassifyBody(text="a boat", top_k=99))
    assert isinstance(refused, Problem), refused
    assert (refused.status, refused.code, refused.input_) == (422, "invalid_parameter", "top_k")

    items = [BatchItem(id="a", text="a small boat"), BatchItem(id="b", image="bm90IGFuIGltYWdl")]
    batch = classify_batch.sync(client=client, body=BatchBody(items=items, top_k=1))
    good, bad = batch.items
    assert (good.id, good.classification.model) == ("a", "illustrations")
    assert (bad.id, bad.problem.code) == ("b", "unsupported_format")
    assert "polymodal_workers" in metrics.sync(client=client)
sys.stdout.write("openapi-python-client: generated, imported, classified\n")
