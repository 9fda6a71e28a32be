"""Public API of the model package: everything that serving may use, without torch.

Names are imported on first use, so that the command line can read the table of modalities without numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from polymodal.model.alignment import EVEN, calibration_of, cosines, match_of
    from polymodal.model.capabilities import Capability, Model, Space
    from polymodal.model.config import MatchConfig
    from polymodal.model.errors import (
        BundleError,
        InputError,
        InvalidParameter,
        ModelError,
        NothingGiven,
        SearchIndexError,
        TooLarge,
        Undecodable,
        UnknownModality,
        UnsupportedFormat,
        input_error,
    )
    from polymodal.model.index import Hit, SearchIndex, read_index, rebuild_command
    from polymodal.model.kinds import SLOW_KINDS, kind_of, load_bundle
    from polymodal.model.kinds.network import Network
    from polymodal.model.modalities import MODALITIES, RECORDING, Modality, workload
    from polymodal.model.runtimes.processor import Processor, processor
    from polymodal.model.speech.subtitles import subtitles
    from polymodal.model.stages import DECODE, FUSE, Stages, Took, encoding
    from polymodal.model.tasks import TASKS, tasks_of
    from polymodal.model.tasks.classify import Classification
    from polymodal.model.tasks.contract import (
        SHARE,
        Batch,
        Count,
        Schema,
        Share,
        Task,
        TaskAnswer,
        TaskOptions,
        answer_one,
    )
    from polymodal.model.tasks.embed import CountedEmbedOptions, Embedding
    from polymodal.model.tasks.transcribe import (
        SpeechOptions,
        TranscribeOptions,
        Transcription,
        TranslateOptions,
        printable,
    )
    from polymodal.model.types import Array, Arrays, Description, Inputs, InputSpec, Observed, Probe, Sample

__all__ = [
    "DECODE",
    "EVEN",
    "FUSE",
    "MODALITIES",
    "RECORDING",
    "SHARE",
    "SLOW_KINDS",
    "TASKS",
    "Array",
    "Arrays",
    "Batch",
    "BundleError",
    "Capability",
    "Classification",
    "Count",
    "CountedEmbedOptions",
    "Description",
    "Embedding",
    "Hit",
    "InputError",
    "InputSpec",
    "Inputs",
    "InvalidParameter",
    "MatchConfig",
    "Modality",
    "Model",
    "ModelError",
    "Network",
    "NothingGiven",
    "Observed",
    "Probe",
    "Processor",
    "Sample",
    "Schema",
    "SearchIndex",
    "SearchIndexError",
    "Share",
    "Space",
    "SpeechOptions",
    "Stages",
    "Task",
    "TaskAnswer",
    "TaskOptions",
    "TooLarge",
    "Took",
    "TranscribeOptions",
    "Transcription",
    "TranslateOptions",
    "Undecodable",
    "UnknownModality",
    "UnsupportedFormat",
    "answer_one",
    "calibration_of",
    "cosines",
    "encoding",
    "input_error",
    "kind_of",
    "load_bundle",
    "match_of",
    "printable",
    "processor",
    "read_index",
    "rebuild_command",
    "subtitles",
    "tasks_of",
    "workload",
]

_MODULES: Final = (
    *("modalities", "errors", "types", "stages", "capabilities", "config", "alignment"),
    *(
        "runtimes.processor",
        "kinds",
        "kinds.network",
        "tasks",
        "tasks.contract",
        "tasks.classify",
        "tasks.embed",
        "tasks.transcribe",
        "speech.subtitles",
    ),
    "index",
)
"""Where public names are defined, light modules first."""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:  # noqa: ANN401 — any of the public names
        if name in __all__:
            for module in map(import_module, (f"{__name__}.{module}" for module in _MODULES)):
                if hasattr(module, name):
                    return getattr(module, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
