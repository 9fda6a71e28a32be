"""A network of a few thousand weights, and the drawn data set, prepared once for all tests."""

import pytest
import torch

from polymodal.model.config import EncoderConfig, ModalityConfig, NetworkConfig
from polymodal.model.manifest import read_manifest
from polymodal.model.modalities.image.input import ImageInput
from polymodal.model.modalities.text.input import TextInput
from polymodal.model.modalities.text.vocabulary import train_tokenizer
from polymodal.model.network import build_network
from polymodal.model.runtimes.torch_runtime import TorchRuntime
from polymodal.model.training import evaluate
from polymodal.model.training.examples import prepare_examples


@pytest.fixture(scope="session")
def manifest(manifest_folder):
    return read_manifest(manifest_folder)


@pytest.fixture(scope="session")
def inputs(manifest):
    texts = [row.inputs["text"] for row in manifest.by_split("train") if "text" in row.inputs]
    return {"image": ImageInput(side=32), "text": TextInput(train_tokenizer(texts), max_tokens=12)}


@pytest.fixture(scope="session")
def examples(manifest, inputs, tmp_path_factory):
    return prepare_examples(manifest, inputs, "inputs", tmp_path_factory.mktemp("examples"), workers=2)


@pytest.fixture(scope="session")
def network_config(manifest, inputs):
    encoders = {
        "image": EncoderConfig(name="cnn", options={"channels": 4, "dropout": 0.0}),
        "text": EncoderConfig(
            name="lstm", options={"vocabulary": inputs["text"].vocabulary, "hidden": 8, "tokens": 8, "dropout": 0.1}
        ),
    }
    return NetworkConfig(
        modalities={name: ModalityConfig(input=inputs[name].settings(), encoder=encoders[name]) for name in inputs},
        width=16,
        fusion="concat",
        target="single-label",
        labels=manifest.labels,
        dropout=0.1,
    )


@pytest.fixture
def fresh(network_config):
    """`fresh()` returns a new network with the same untrained weights each time."""

    def build(seed=0, **changed):
        torch.manual_seed(seed)
        return build_network(network_config.model_copy(update=changed))

    return build


@pytest.fixture
def validate(examples, network_config):
    """Accuracy on the validation split by set of modalities."""

    def measure(network, split="validation"):
        runtime = TorchRuntime(network, torch.device("cpu"))
        answers = evaluate.predict(runtime, examples, examples.split(split), network_config)
        return evaluate.monitor(answers, examples, network_config.target)

    return measure
