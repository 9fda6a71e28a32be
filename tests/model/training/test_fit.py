"""The training loop learns, can be interrupted and resumed, and minimises the documented objective."""

import math
import sys
import threading
from collections import Counter
from contextlib import closing
from dataclasses import replace

import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from polymodal.model.errors import ModelError
from polymodal.model.fusion import FUSIONS
from polymodal.model.training import fit as loop
from polymodal.model.training.curves import Curves
from polymodal.model.training.fit import SAMPLED_SETS, Batches, Objective, choose_device, collate, fit
from polymodal.model.training.presets import TrainingConfig

CONFIG = TrainingConfig(epochs=4, patience=9, batch_size=6, learning_rate=5e-3, seed=3)


@pytest.fixture
def run(fresh, examples, validate, tmp_path):
    """`run(config)` trains the small network."""

    def train(config=CONFIG, *, network=None, examples=examples, validate=validate, **options):
        options = {"fingerprint": "data", "resume": False, "device": "cpu", "workers": 1, **options}
        return fit(network or fresh(), examples, config, validate, checkpoint=tmp_path / "checkpoint.pt", **options)

    return train


@pytest.fixture
def interrupted(run, validate):
    """`interrupted(epochs)` begins a training, and interrupts it before the next epoch is recorded."""

    def train(epochs, config=CONFIG, **options):
        done = []

        def interrupt(network):
            if len(done) == epochs:
                raise Interrupted
            done.append(1)
            return validate(network)

        with pytest.raises(Interrupted):
            run(config, validate=interrupt, **options)

    return train


class Interrupted(Exception):
    """Simulates Ctrl-C, a kill or a power cut."""


def assert_same(progress, other):
    for key in ("history", "epoch", "best_epoch", "best_score"):
        assert getattr(progress, key) == getattr(other, key), key
    assert progress.best_weights.keys() == other.best_weights.keys()
    for name, weight in progress.best_weights.items():
        assert torch.equal(weight, other.best_weights[name]), name


def weights_of(network):
    return {name: weight.clone() for name, weight in network.state_dict().items()}


# --- learning ---


@pytest.mark.parametrize("fusion", FUSIONS)
def test_ten_rows_are_learned_perfectly(fresh, examples, validate, run, fusion):
    rows = examples.split("train")
    ten = [*rows[:5], *rows[-5:]]
    few = replace(
        examples,
        rows=tuple(replace(row, split="train" if number in ten else "") for number, row in enumerate(examples.rows)),
    )
    network = fresh(fusion=fusion)
    config = replace(CONFIG, epochs=40, patience=40, batch_size=10, learning_rate=1e-2, augment=(), smoothing=0.0)
    progress = run(config, network=network, examples=few, validate=lambda _: {"none": 0.0})
    losses = [epoch["loss"] for epoch in progress.history]
    assert losses[-1] < 0.1 < losses[0]
    batch = collate(few, ten)
    embeddings = {}
    with torch.no_grad():
        for name, tensors in batch["inputs"].items():
            encoded = network.train().encode(name, tensors)
            embeddings[name] = torch.zeros(10, 16).index_copy(0, batch["rows"][name], encoded)
        logits = network.fuse(embeddings, batch["present"])
    assert (logits.argmax(dim=1) == batch["targets"]).all()


def test_the_best_weights_are_kept(run):
    scores = iter([0.5, 0.9, 0.2, 0.3])
    weights = []
    progress = run(validate=lambda network: weights.append(weights_of(network)) or {"image": next(scores)})
    assert (progress.best_epoch, progress.best_score, progress.epoch) == (2, 0.9, 4)
    assert all(torch.equal(weight, weights[1][name]) for name, weight in progress.best_weights.items())


def test_training_stops_after_epochs_without_improvement(run):
    scores = iter([0.5, 0.6, 0.6, 0.1, 0.9])
    progress = run(replace(CONFIG, epochs=9, patience=2), validate=lambda _: {"image": next(scores)})
    assert (progress.epoch, progress.best_epoch) == (4, 2)


def test_the_learning_curve_is_recorded(run):
    progress = run()
    assert [epoch["epoch"] for epoch in progress.history] == [1, 2, 3, 4]
    sets = ("image+text", "image", "text")
    assert set(progress.history[0]) == {"epoch", "loss", *(f"validation {key}" for key in sets)}
    assert all(math.isfinite(epoch["loss"]) for epoch in progress.history)


# --- frozen encoders ---


def test_a_frozen_encoder_does_not_change(run, fresh):
    network = fresh()
    before = weights_of(network)
    run(replace(CONFIG, frozen=("encoders.image.",)), network=network)
    changed = {name for name, weight in network.state_dict().items() if not torch.equal(weight, before[name])}
    projection = {"encoders.image.project.1.weight", "encoders.image.project.1.bias"}
    assert changed > projection | {"encoders.text.embed.weight", "head.classify.1.weight"}
    assert {name for name in changed if name.startswith("encoders.image.")} == projection


def test_a_frozen_encoder_has_no_dropout_and_records_no_gradient(run, fresh):
    network = fresh()
    encoder, unchanged, projections = network.encoders["text"], set(), set()
    encoder.dropout.register_forward_hook(lambda _, inputs, output: unchanged.add(torch.equal(inputs[0], output)))
    encoder.project.register_forward_pre_hook(
        lambda module, inputs: projections.add((module.training, inputs[0].requires_grad))
    )
    run(replace(CONFIG, epochs=1, frozen=("encoders.text.",)), network=network, validate=lambda _: {"none": 0.0})
    assert unchanged == {True}
    assert projections == {(True, False)}


# --- repeating and resuming ---


def test_the_weights_depend_on_the_seed_alone(run):
    first = run()
    assert_same(run(), first)
    assert run(replace(CONFIG, seed=4)).history != first.history


@pytest.mark.parametrize(
    ("epochs", "config"),
    [
        pytest.param(0, CONFIG, id="before-the-first-epoch"),
        pytest.param(1, CONFIG, id="after-one-epoch"),
        pytest.param(3, CONFIG, id="before-the-last"),
        pytest.param(2, replace(CONFIG, averaging=0.9), id="with-averaged-weights"),
    ],
)
def test_a_resumed_training_has_the_result_of_an_uninterrupted_one(run, interrupted, epochs, config):
    uninterrupted = run(config)
    interrupted(epochs, config)
    torch.manual_seed(99)  # as in another process
    assert_same(run(config, resume=True), uninterrupted)


def test_a_finished_training_is_not_continued(run):
    finished = run()
    assert_same(run(resume=True, validate=lambda _: pytest.fail("trained again")), finished)


def test_a_checkpoint_of_other_data_is_rejected(run):
    run()
    with pytest.raises(ModelError, match="made with other data, preset or options; start without --resume"):
        run(resume=True, fingerprint="other")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(None, "no checkpoint to resume from", id="missing"),
        pytest.param(b"", "not a checkpoint that can be read", id="empty"),
        pytest.param(b"words", "not a checkpoint that can be read", id="words"),
        pytest.param(b"PK\x03\x04words", "not a checkpoint that can be read", id="broken-zip"),
    ],
)
def test_a_missing_or_broken_checkpoint_is_an_error(run, tmp_path, content, problem):
    if content is not None:
        (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(ModelError, match=problem):
        run(resume=True)


def test_a_new_training_replaces_an_old_checkpoint(run, tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"words")
    result = run()
    assert_same(run(resume=True), result)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


# --- devices and precisions ---


def test_a_missing_device_is_reported_with_the_available_ones(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ModelError, match=r"device: 'cuda' is not on this machine; allowed here: auto, cpu$"):
        choose_device("cuda", "fp32")
    assert choose_device("auto", "fp32") == "cpu"


def test_auto_is_the_accelerator_if_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto", "fp16") == "mps"
    assert choose_device("cpu", "fp32") == "cpu"


def test_a_precision_that_the_device_lacks_is_rejected(run):
    with pytest.raises(ModelError, match="precision: 'fp16' on cpu; allowed there: fp32, bf16"):
        run(replace(CONFIG, precision="fp16"))


def test_half_precision_learns_and_keeps_float32_weights(fresh, run):
    network, types = fresh(), set()
    network.head.register_forward_hook(lambda *args: types.add(args[-1].dtype))
    config = replace(CONFIG, precision="bf16", epochs=3, learning_rate=1e-2)
    progress = run(config, network=network)
    assert torch.bfloat16 in types
    assert progress.history[-1]["loss"] < progress.history[0]["loss"]
    weights = (weight for name, weight in progress.best_weights.items() if "num_batches" not in name)
    assert {weight.dtype for weight in weights} == {torch.float32}
    once = replace(config, epochs=1)
    assert run(once).history != run(replace(once, precision="fp32")).history


# --- the log ---


def logged(folder):
    """The (step, value) pairs that TensorBoard would show, by name."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_a_resumed_log_equals_an_uninterrupted_one(run, interrupted, tmp_path):
    with closing(Curves(tmp_path / "uninterrupted")) as curves:
        progress = run(curves=curves)
    with closing(Curves(tmp_path / "resumed")) as curves:
        interrupted(2, curves=curves)
    with closing(Curves(tmp_path / "resumed")) as curves:
        run(resume=True, curves=curves)
    log = logged(tmp_path / "resumed")
    assert log == logged(tmp_path / "uninterrupted")
    assert [step for step, _ in log["loss"]] == list(range(1, 17))
    assert [step for step, _ in log["validation/image+text"]] == [4, 8, 12, 16]
    expected = [epoch["validation image"] for epoch in progress.history]
    assert [value for _, value in log["validation/image"]] == pytest.approx(expected)
    rates = [value for _, value in log["learning rate/group 0"]]
    assert rates[0] == pytest.approx(CONFIG.learning_rate)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0)


def test_a_new_training_replaces_an_old_log(run, tmp_path):
    for _ in range(2):
        with closing(Curves(tmp_path / "log")) as curves:
            run(replace(CONFIG, epochs=1), curves=curves)
    assert len(list((tmp_path / "log").iterdir())) == 1


def test_without_tensorboard_the_error_names_the_package_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ModelError, match=r"pip install 'polymodal\[tensorboard\]'"):
        Curves(tmp_path)


# --- the objective ---


class Sums(torch.nn.Module):
    """A network whose logits are the sum of the present embeddings, so that expected losses can be computed by hand."""

    def __init__(self):
        super().__init__()
        self.fusion = type("Fusion", (), {"width": 2})()
        self.head = self
        self.scale = torch.nn.Parameter(torch.ones(()))

    def encode(self, name, tensors):
        return tensors["values"] * self.scale

    def fuse(self, embeddings, present):
        assert present.any(dim=1).all()
        return sum(vectors * present[:, [column]] for column, vectors in enumerate(embeddings.values()))

    def loss(self, logits, targets, smoothing, weights):
        losses = functional.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none")
        return losses if weights is None else losses * weights[targets]


IMAGE, TEXT = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[-1.0, 0.5], [3.0, 0.0]])
TARGETS = torch.tensor([0, 1])


def batch_of(image=(0, 1), text=(0, 1)):
    rows = {"image": list(image), "text": list(text)}
    values = {"image": IMAGE, "text": TEXT}
    present = torch.tensor([[row in image, row in text] for row in range(2)])
    return {
        "inputs": {name: {"values": values[name][indices]} for name, indices in rows.items() if indices},
        "rows": {name: torch.tensor(indices) for name, indices in rows.items() if indices},
        "present": present,
        "targets": TARGETS,
    }


def loss(logits, rows=(0, 1)):
    return functional.cross_entropy(logits, TARGETS[list(rows)])


def objective_of(*order, dropout=0.4, **options):
    return Objective(Sums(), order, TrainingConfig(modality_dropout=dropout, smoothing=0.0), **options)


@pytest.mark.parametrize("dropout", [0.0, 0.3, 1.0])
def test_modality_dropout_of_two_modalities_is_computed_and_not_sampled(dropout):
    objective = objective_of("image", "text", dropout=dropout)
    expected = (1 - dropout) * loss(IMAGE + TEXT) + dropout / 2 * (loss(IMAGE) + loss(TEXT))
    assert_close(objective(batch_of()), expected)
    assert_close(objective(batch_of()), objective(batch_of()))


def test_a_row_is_left_out_of_sets_without_any_of_its_modalities():
    both = torch.stack([IMAGE[0] + TEXT[0], TEXT[1]])
    expected = 0.6 * loss(both) + 0.2 * loss(IMAGE[[0]], [0]) + 0.2 * loss(TEXT)
    assert_close(objective_of("image", "text")(batch_of(image=(0,))), expected)


def test_a_batch_without_images_is_learned_from_its_texts():
    result = objective_of("image", "text")(batch_of(image=()))
    assert_close(result, (0.6 + 0.2) * loss(TEXT))
    result.backward()


def test_a_single_modality_is_never_dropped():
    batch = {**batch_of(), "present": torch.ones(2, 1, dtype=torch.bool)}
    assert_close(objective_of("text", dropout=0.9)(batch), loss(TEXT))


@pytest.mark.parametrize("order", ["a", "ab", "abc", "abcdefgh"])
def test_weights_of_sets_of_modalities_sum_to_one(order):
    weights = objective_of(*order).weights()
    assert sum(weight for _, weight in weights) == pytest.approx(1)
    assert len(weights) == {1: 1, 2: 3}.get(len(order), 1 + SAMPLED_SETS)
    assert all(names for names, _ in weights)
    assert [names for names, _ in weights].count(set(order)) == 1


def test_two_modalities_need_no_random_numbers():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    objective_of("image", "text")(batch_of())
    assert torch.equal(torch.get_rng_state(), before)


def test_sampled_sets_depend_on_the_seed_and_are_unbiased():
    objective = objective_of("a", "b", "c", dropout=0.6)
    torch.manual_seed(0)
    first = [objective.weights() for _ in range(2000)]
    torch.manual_seed(0)
    assert [objective.weights() for _ in range(2000)] == first
    shares = Counter()
    for weights in first:
        for names, weight in weights:
            shares[frozenset(names)] += weight / len(first)
    assert shares.pop(frozenset("abc")) == pytest.approx(0.4)
    assert len(shares) == 6
    assert all(share == pytest.approx(0.1, rel=0.1) for share in shares.values())


def test_the_loss_of_three_modalities_is_estimated_from_sampled_sets():
    objective = objective_of("image", "text", "audio")
    batch = batch_of()
    batch["present"] = torch.tensor([[True, True, False]] * 2)
    torch.manual_seed(0)
    mean = torch.stack([objective(batch) for _ in range(3000)]).mean()
    # Image or text, alone or with audio, which no row has; both; rows with only audio are left out.
    sets = [loss(IMAGE), loss(TEXT), loss(IMAGE), loss(TEXT), loss(IMAGE + TEXT)]
    assert_close(mean, 0.6 * loss(IMAGE + TEXT) + 0.4 / 6 * sum(sets), atol=0.01, rtol=0)


def test_class_weights_are_in_the_order_of_the_labels():
    config = TrainingConfig(modality_dropout=0.0, smoothing=0.0, class_weights={"tomato": 3.0, "sea": 0.5})
    objective = Objective(Sums(), ("image", "text"), config, labels=("sea", "tomato"))
    losses = functional.cross_entropy(IMAGE + TEXT, TARGETS, reduction="none")
    assert_close(objective(batch_of()), (0.5 * losses[0] + 3.0 * losses[1]) / 2)


def test_nan_is_never_the_best_score(run):
    scores = iter([math.nan, 0.2, math.nan, 0.1])
    progress = run(validate=lambda _: {"image": next(scores)})
    assert (progress.best_epoch, progress.best_score) == (2, 0.2)


# --- batches ---


def flat(batch):
    """Every tensor of a batch, by its path."""
    tensors = {}
    for key, value in batch.items():
        nested = isinstance(value, dict)
        tensors |= {f"{key}.{name}": tensor for name, tensor in flat(value).items()} if nested else {key: value}
    return tensors


def assert_same_batches(batches, others):
    for batch, other in zip(batches, others, strict=True):
        assert flat(batch).keys() == flat(other).keys()
        assert all(torch.equal(tensor, flat(other)[name]) for name, tensor in flat(batch).items())


def test_batches_do_not_depend_on_the_number_of_workers(examples):
    batches = list(Batches(examples, CONFIG, workers=1).of(2))
    assert_same_batches(batches, list(Batches(examples, CONFIG, workers=5).of(2)))
    assert [len(batch["targets"]) for batch in batches] == [6, 6, 6, 6]


@pytest.mark.parametrize(("seed", "epoch"), [(3, 1), (4, 0)], ids=["epoch", "seed"])
def test_another_epoch_or_seed_gives_other_batches(examples, seed, epoch):
    others = Batches(examples, replace(CONFIG, seed=seed), workers=1).of(epoch)
    with pytest.raises(AssertionError):
        assert_same_batches(Batches(examples, CONFIG, workers=1).of(0), others)


def test_an_epoch_has_every_training_row_once(examples):
    config = replace(CONFIG, augment=(), batch_size=5)
    batches = list(Batches(examples, config, workers=2).of(0))
    images = sorted(image.flatten().tolist() for batch in batches for image in batch["inputs"]["image"]["pixels"])
    store = examples.stores["image"]
    assert images == sorted(store[row].flatten().tolist() for row in examples.split("train") if store.has(row))


def test_workers_make_batches_at_the_same_time(examples, monkeypatch):
    """Every batch waits for another one to start, so a single worker would wait for ever."""
    barrier = threading.Barrier(2, timeout=20)
    monkeypatch.setattr(loop, "collate", lambda *args: barrier.wait() is not None and collate(*args))
    assert len(list(Batches(examples, CONFIG, workers=2).of(0))) == 4


def test_only_a_few_batches_are_made_ahead(examples, monkeypatch):
    made = []
    monkeypatch.setattr(loop, "collate", lambda *args: made.append(1) or collate(*args))
    batches = Batches(examples, replace(CONFIG, batch_size=2), workers=1)
    reader = batches.of(0)
    next(reader)
    reader.close()  # as after an interruption; waits for batches in progress
    assert len(batches) == 12
    assert len(made) <= 3


def test_an_error_of_a_worker_is_raised_in_the_loop(examples, monkeypatch):
    def broken(*_):
        raise ValueError("no such image")

    monkeypatch.setattr(loop, "collate", broken)
    with pytest.raises(ValueError, match="no such image"):
        list(Batches(examples, CONFIG, workers=2).of(0))


def test_a_batch_has_the_inputs_of_the_rows_that_have_them(examples):
    rows = examples.split("train")[:6]
    batch = collate(examples, rows)
    for column, name in enumerate(("image", "text")):
        having = [index for index, row in enumerate(rows) if examples.stores[name].has(row)]
        assert batch["rows"][name].tolist() == having
        assert batch["present"][:, column].nonzero()[:, 0].tolist() == having
        assert len(next(iter(batch["inputs"][name].values()))) == len(having)
    assert batch["targets"].tolist() == examples.targets[rows].tolist()


def test_rows_without_images_make_a_batch_without_images(examples):
    rows = [row for row in examples.split("train") if "image" not in examples.rows[row].inputs]
    batch = collate(examples, rows, torch.Generator())
    assert set(batch["inputs"]) == {"text"}
    assert not batch["present"][:, 0].any()


def test_training_uses_no_more_threads_than_the_quota_of_the_container(monkeypatch):
    monkeypatch.setattr(loop, "available_cpus", lambda: 2)
    torch.set_num_threads(4)
    try:
        loop.use_available_cores()
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        loop.use_available_cores()
        assert torch.get_num_threads() == 1  # fewer were chosen
    finally:
        torch.set_num_threads(1)
