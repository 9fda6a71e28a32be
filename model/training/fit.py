"""The training loop, from prepared examples to the best weights.

B examples, M modalities, D embedding width, K labels.
"""

import math
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import is_bf16_available, send_to_device
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from polymodal.cores import available_cpus
from polymodal.model.errors import ModelError
from polymodal.model.modalities import MODALITIES
from polymodal.model.network import MultimodalClassifier
from polymodal.model.progress import console, track
from polymodal.model.training.averaging import Average
from polymodal.model.training.curves import Curves
from polymodal.model.training.examples import Examples
from polymodal.model.training.presets import TrainingConfig

SAMPLED_SETS: Final = 4
"""Number of sets of modalities for a batch's loss, in addition to the whole set, if there are more than two modalities."""
LARGEST_GRADIENT: Final = 1.0  # norm to which gradients are clipped

Batch = dict[str, Any]
Validate = Callable[[MultimodalClassifier], Mapping[str, float]]
"""Returns scores of a network on the validation split by set of modalities; early stopping monitors their mean."""


@dataclass(slots=True)
class Progress:
    """State of a training after a number of epochs: all that resuming needs besides the optimiser."""

    fingerprint: str
    """Digest of data, network and hyper-parameters; a checkpoint of another one is rejected."""
    epoch: int = 0
    best_epoch: int = 0
    best_score: float = -math.inf
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


class Objective(nn.Module):
    """The network with its training loss: the expected loss under whole-modality dropout.

    With probability 1 − p an example keeps all its modalities; otherwise it keeps one of the smaller sets, each equally likely.
    For one or two modalities the expectation over these sets is computed, because fusion is cheap compared with encoding. For
    more there would be 2^M − 2 sets, so it is estimated without bias from SAMPLED_SETS of them, which are drawn for every batch
    from torch's generator.
    """

    label_weights: Tensor | None

    def __init__(
        self, network: MultimodalClassifier, order: Sequence[str], config: TrainingConfig, labels: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self.network = network
        self.order = tuple(order)
        self.width = network.fusion.width
        self.smoothing = config.smoothing
        weights = torch.tensor([config.class_weights[label] for label in labels]) if config.class_weights else None
        self.register_buffer("label_weights", weights)
        self.dropout = config.modality_dropout if len(order) > 1 else 0.0

    def forward(self, batch: Batch) -> Tensor:
        """Return the mean loss of a batch of `collate`."""
        present: Tensor = batch["present"]  # (B, M)
        embeddings = {name: self._encode(name, batch) for name in self.order}  # (B, D) each
        total = torch.zeros((), device=present.device)
        for names, weight in self.weights():
            offered = torch.tensor([name in names for name in self.order], device=present.device)
            left = present & offered
            rows = left.any(dim=1).nonzero()[:, 0]
            if weight == 0.0 or not len(rows):
                continue
            logits = self.network.fuse({name: vectors[rows] for name, vectors in embeddings.items()}, left[rows])
            losses = self.network.head.loss(logits, batch["targets"][rows], self.smoothing, self.label_weights)
            total = total + weight * losses.mean()
        return total

    def weights(self) -> list[tuple[set[str], float]]:
        """Return offered sets of modalities with the weights of their losses, which sum to 1."""
        count = len(self.order)
        if count <= 2:
            smaller = [{name} for name in self.order] if count > 1 else []
        else:
            masks = torch.randint(1, 2**count - 1, (SAMPLED_SETS,)).tolist()  # neither none nor all
            smaller = [{name for bit, name in enumerate(self.order) if mask >> bit & 1} for mask in masks]
        share = self.dropout / max(1, len(smaller))
        return [(set(self.order), 1.0 - self.dropout), *((names, share) for names in smaller)]

    def _encode(self, name: str, batch: Batch) -> Tensor:
        """Return embeddings (B, D) of the rows that have this modality, zeros elsewhere."""
        embeddings = torch.zeros(len(batch["present"]), self.width, device=batch["present"].device)
        if name not in batch["inputs"]:
            return embeddings
        encoded = self.network.encode(name, batch["inputs"][name])
        return embeddings.index_copy(0, batch["rows"][name], encoded.to(embeddings.dtype))


def fit(
    network: MultimodalClassifier,
    examples: Examples,
    config: TrainingConfig,
    validate: Validate,
    *,
    checkpoint: Path,
    fingerprint: str,
    resume: bool,
    device: str = "auto",
    workers: int = 1,
    curves: Curves | None = None,
    metric: str = "accuracy",
) -> Progress:
    """Train until the validation score stops improving, and return the progress with the best weights.

    After every epoch `checkpoint` is replaced; with `resume` the training continues from it. An interrupted and resumed run has
    the same result as an uninterrupted one. `metric` names what `validate` returns. Raises ModelError as `choose_device` does.
    """
    accelerator = _accelerator(choose_device(device, config.precision), config.precision)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not config.freezes(name))
    # Faster for convolutions; torch's annotations lack this overload.
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    objective = Objective(network, tuple(examples.inputs), config, examples.labels)
    optimizer = torch.optim.AdamW(_parameter_groups(network, config), weight_decay=config.weight_decay)
    batches = Batches(examples, config, workers)
    scheduler = LambdaLR(optimizer, _schedule(config, steps=len(batches) * config.epochs))
    objective, optimizer = accelerator.prepare(objective, optimizer)
    average = Average(network, config)
    stateful = {"network": network, "average": average, "optimizer": optimizer, "scheduler": scheduler}
    progress = Progress(fingerprint)
    if resume:
        progress = _restore(checkpoint, fingerprint, stateful)
        console.print(f"resuming after epoch {progress.epoch}")
    else:
        _save(checkpoint, progress, stateful)
    if curves:
        curves.begin(progress.epoch * len(batches))

    while progress.epoch < config.epochs and progress.epoch - progress.best_epoch < config.patience:
        torch.manual_seed(config.seed + progress.epoch)
        _set_training_mode(network, config)
        losses = []
        title = f"epoch {progress.epoch + 1}/{config.epochs}"
        for batch in track(batches.of(progress.epoch), title, len(batches), "batches"):
            loss = objective(send_to_device(batch, accelerator.device))
            optimizer.zero_grad(set_to_none=True)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(objective.parameters(), LARGEST_GRADIENT)
            optimizer.step()
            scheduler.step()
            average.update(scheduler.last_epoch)
            losses.append(float(loss.detach()))
            if curves:
                curves.step(losses[-1], [float(rate) for rate in scheduler.get_last_lr()])
        scores = validate(average.network())
        _record(progress, average.network(), float(np.mean(losses)), scores)
        if curves:
            curves.epoch(scores)
        _save(checkpoint, progress, stateful)
        figures = "  ".join(f"{key} {value:.3f}" for key, value in scores.items())
        loss_figure = f"loss {progress.history[-1]['loss']:.3f}"
        console.print(f"epoch {progress.epoch}: {loss_figure}  validation {metric}: {figures}")
    return progress


def choose_device(device: str, precision: str) -> str:
    """Return cpu, cuda or mps; for "auto" the fastest one of this machine.

    Raises ModelError for a device that this machine lacks, or that cannot compute with this precision.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    available = [name for name, exists in (("cuda", cuda), ("mps", mps), ("cpu", True)) if exists]
    if device not in ("auto", *available):
        raise ModelError(f"device: {device!r} is not on this machine; allowed here: auto, {', '.join(available)}")
    chosen = available[0] if device == "auto" else device
    half_precisions = {"fp16": chosen != "cpu", "bf16": chosen == "cpu" or is_bf16_available()}
    allowed = ["fp32", *(name for name, supported in half_precisions.items() if supported)]
    if precision not in allowed:
        raise ModelError(f"precision: {precision!r} on {chosen}; allowed there: {', '.join(allowed)}")
    return chosen


def use_available_cores() -> None:
    """Limit torch's threads to the cores that a container's quota allows; torch itself only reads the affinity."""
    torch.set_num_threads(min(torch.get_num_threads(), available_cpus()))


def _accelerator(device: str, precision: str) -> Accelerator:
    # Accelerate keeps the first device and precision of a process, which may train twice.
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=device == "cpu", mixed_precision="no" if precision == "fp32" else precision)


def _set_training_mode(network: MultimodalClassifier, config: TrainingConfig) -> None:
    """Set training mode, except for frozen modules, which have no dropout and keep the statistics of batch normalisation.

    torch records no gradients for a frozen encoder, because nothing before it requires one.
    """
    for name, module in network.named_modules():
        module.training = not config.freezes(f"{name}.")


def _record(progress: Progress, network: MultimodalClassifier, loss: float, scores: Mapping[str, float]) -> None:
    """Record an epoch's loss and scores, and keep the weights if they are the best so far."""
    progress.epoch += 1
    score = float(np.nan_to_num(np.mean(list(scores.values())), nan=-math.inf))
    if score > progress.best_score or not progress.best_weights:
        progress.best_epoch, progress.best_score = progress.epoch, score
        progress.best_weights = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
    progress.history.append(
        {"epoch": progress.epoch, "loss": loss, **{f"validation {k}": v for k, v in scores.items()}}
    )


def collate(
    examples: Examples, rows: Sequence[int], generator: torch.Generator | None = None, augmented: Collection[str] = ()
) -> Batch:
    """Collate rows into `inputs` and their row numbers `rows` by modality, `present`, and `targets`.

    With a generator, the modalities in `augmented` are augmented.
    """
    present = examples.present(rows)
    batch: Batch = {"inputs": {}, "rows": {}, "present": torch.from_numpy(present)}
    batch["targets"] = torch.from_numpy(examples.targets[list(rows)])
    for column, name in enumerate(examples.inputs):
        having = np.flatnonzero(present[:, column]).tolist()
        if not having:
            continue
        arrays = examples.collate(name, [rows[index] for index in having])
        tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}
        if generator is not None and name in augmented:
            tensors = MODALITIES[name].module("augment").augment(tensors, generator)
        batch["inputs"][name] = tensors
        batch["rows"][name] = torch.tensor(having)
    return batch


class Batches:
    """Batches of training rows, whose order and augmentations depend only on the seed and the epoch.

    `workers` threads collate and augment in the background, a few batches ahead, so memory stays bounded. Threads are enough,
    because numpy and torch release the interpreter's lock.
    """

    def __init__(self, examples: Examples, config: TrainingConfig, workers: int) -> None:
        self._examples = examples
        self._rows = torch.tensor(examples.split("train"))
        self._config = config
        self._workers = workers

    def __len__(self) -> int:
        return math.ceil(len(self._rows) / self._config.batch_size)

    def of(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of one epoch, counted from 0."""
        generator = torch.Generator().manual_seed(self._config.seed * 100_003 + epoch)
        order = torch.randperm(len(self._rows), generator=generator)
        seeds = torch.randint(2**31, (len(self),), generator=generator).tolist()  # one per batch
        waiting: deque[Future[Batch]] = deque()
        pool = ThreadPoolExecutor(self._workers)
        try:
            # Nearly equal sizes, so that no batch is tiny.
            for rows, seed in zip(self._rows[order].tensor_split(len(self)), seeds, strict=True):
                waiting.append(pool.submit(self._make, rows.tolist(), seed))
                if len(waiting) > 2 * self._workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _make(self, rows: list[int], seed: int) -> Batch:
        return collate(self._examples, rows, torch.Generator().manual_seed(seed), self._config.augment)


def _parameter_groups(network: MultimodalClassifier, config: TrainingConfig) -> list[dict[str, Any]]:
    """Return one group for parameters from scratch and one for each trained encoder; matrices have weight decay, vectors don't."""
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = config.learning_rate
        if name.startswith("encoders.") and ".project." not in name:
            rate = config.encoder_learning_rates.get(name.split(".")[1], rate)
        groups.setdefault((rate, parameter.ndim > 1), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": config.weight_decay if decays else 0.0}
        for (rate, decays), parameters in groups.items()
    ]


def _schedule(config: TrainingConfig, steps: int) -> Callable[[int], float]:
    """Return the factor of the peak rates at each step: linear warm-up, then half a cosine to zero."""
    rising = max(1, round(config.warm_up * steps))

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rising) / max(1, steps - rising))))

    return factor


def _save(path: Path, progress: Progress, stateful: Mapping[str, Any]) -> None:
    """Replace the checkpoint atomically by one with all that resuming needs."""
    temporary = path.with_suffix(".part")
    torch.save(
        {"progress": asdict(progress), **{name: value.state_dict() for name, value in stateful.items()}}, temporary
    )
    temporary.replace(path)


def _restore(path: Path, fingerprint: str, stateful: Mapping[str, Any]) -> Progress:
    """Restore network, average, optimiser and schedule from a checkpoint. Raises ModelError."""
    if not path.exists():
        raise ModelError(f"{path}: no checkpoint to resume from; start without --resume")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        progress = Progress(**state["progress"])
    except Exception as problem:
        raise ModelError(f"{path}: not a checkpoint that can be read; start without --resume") from problem
    if progress.fingerprint != fingerprint:
        raise ModelError(f"{path}: made with other data, preset or options; start without --resume")
    for name, value in stateful.items():
        value.load_state_dict(state[name])
    return progress
