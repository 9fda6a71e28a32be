"""One encoder, for one preset."""

from polymodal.model.config import EncoderConfig
from polymodal.model.errors import ModelError
from polymodal.model.modalities.branch import Branch, PresetBranch
from tests.toys.tone.input import ToneInput


def lenient_input():
    return ToneInput()


def read_model(address, options):
    raise ModelError(f"{address}: no other library has models of tones")


BRANCHES = {"loud": lambda options: Branch(ToneInput(), EncoderConfig(name="loud"))}
PRESETS = {"cnn-rnn": PresetBranch("loud")}
