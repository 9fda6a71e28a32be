"""The loop: it learns, it can be interrupted, and what it minimises is what it says."""

import math
import sys
import threading
from collections import Counter
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

    def train(config=CONFIG, *, network=None, resume=False, fingerprint="data", validate=validate, **options):
        where = {
            "checkpoint": tmp_path / "checkpoint.pt",
            "fingerprint": fingerprint,
            "resume": resume,
            "device": "cpu",
            "workers": options.get("workers", 1),
            "curves": options.get("curves"),
        }
        return fit(network or fresh(), options.get("examples", examples), config, validate, **where)

    return train


def assert_same(progress, other):
    assert progress.history == other.history
    assert (progress.epoch, progress.best_epoch, progress.best_score) == (
        other.epoch,
        other.best_epoch,
        other.best_score,
    )
    assert progress.best_weights.keys() == other.best_weights.keys()
    for name, weight in progress.best_weights.items():
        assert torch.equal(weight, other.best_weights[name]), name


# --- learning ---


@pytest.mark.parametrize("fusion", FUSIONS)
def test_ten_rows_can_be_learned_by_heart(fresh, examples, validate, run, fusion):
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
    with torch.no_grad():
        logits = network.train().fuse(
            {
                name: torch.zeros(10, 16).index_copy(
                    0, batch["rows"][name], network.encode(name, batch["inputs"][name])
                )
                for name in ("image", "text")
            },
            batch["present"],
        )
    assert (logits.argmax(dim=1) == batch["targets"]).all()


def test_the_best_weights_are_kept_and_not_the_last(run):
    scores = iter([0.5, 0.9, 0.2, 0.3])
    weights = []

    def validate(network):
        weights.append({name: each.clone() for name, each in network.state_dict().items()})
        return {"image": next(scores)}

    progress = run(validate=validate)
    assert (progress.best_epoch, progress.best_score, progress.epoch) == (2, 0.9, 4)
    assert all(torch.equal(each, weights[1][name]) for name, each in progress.best_weights.items())


def test_training_stops_when_patience_ends(run):
    scores = iter([0.5, 0.6, 0.6, 0.1, 0.9])
    progress = run(replace(CONFIG, epochs=9, patience=2), validate=lambda _: {"image": next(scores)})
    assert (progress.epoch, progress.best_epoch) == (4, 2)


def test_the_learning_curve_is_recorded(run):
    progress = run()
    assert [epoch["epoch"] for epoch in progress.history] == [1, 2, 3, 4]
    assert set(progress.history[0]) == {
        "epoch",
        "loss",
        "validation image+text",
        "validation image",
        "validation text",
    }
    assert all(math.isfinite(epoch["loss"]) for epoch in progress.history)


# --- frozen encoders ---


def test_a_frozen_encoder_keeps_every_bit(run, fresh):
    network = fresh()
    before = {name: each.clone() for name, each in network.state_dict().items()}
    run(replace(CONFIG, frozen=("encoders.image.",)), network=network)
    moved = {name for name, each in network.state_dict().items() if not torch.equal(each, before[name])}
    assert {"encoders.image.project.1.weight", "encoders.text.embed.weight", "head.classify.1.weight"} <= moved
    assert {name for name in moved if name.startswith("encoders.image.")} == {
        "encoders.image.project.1.weight",
        "encoders.image.project.1.bias",
    }


def test_a_frozen_encoder_has_no_dropout_and_records_no_gradient(run, fresh):
    network = fresh()
    seen = []
    encoder = network.encoders["text"]
    encoder.dropout.register_forward_hook(lambda _, given, got: seen.append(torch.equal(given[0], got)))
    grown = []
    encoder.project.register_forward_pre_hook(
        lambda module, given: grown.append((module.training, given[0].requires_grad))
    )
    run(replace(CONFIG, epochs=1, frozen=("encoders.text.",)), network=network, validate=lambda _: {"none": 0.0})
    assert seen
    assert all(seen)
    assert set(grown) == {(True, False)}


# --- repeating and resuming ---


def test_the_same_seed_gives_the_same_weights(run):
    assert_same(run(), run())


def test_another_seed_gives_other_weights(run):
    assert run().history != run(replace(CONFIG, seed=4)).history


class Interrupted(Exception):
    """Stands for Ctrl-C, a kill or a power cut."""


@pytest.mark.parametrize(
    ("epochs", "config"),
    [
        pytest.param(0, CONFIG, id="before-the-first-epoch"),
        pytest.param(1, CONFIG, id="after-one-epoch"),
        pytest.param(3, CONFIG, id="before-the-last"),
        pytest.param(2, replace(CONFIG, averaging=0.9), id="with-averaged-weights"),
    ],
)
def test_an_interrupted_training_ends_as_an_uninterrupted_one(run, validate, epochs, config):
    whole = run(config)
    done = []

    def interrupt(network):
        if len(done) == epochs:
            raise Interrupted
        done.append(1)
        return validate(network)

    with pytest.raises(Interrupted):
        run(config, validate=interrupt)
    torch.manual_seed(99)  # another process
    assert_same(run(config, resume=True), whole)


def test_resuming_what_is_finished_trains_no_further(run):
    whole = run()

    def validate(_):
        pytest.fail("trained again")

    assert_same(run(resume=True, validate=validate), whole)


def test_a_checkpoint_of_other_data_is_refused(run):
    run()
    with pytest.raises(ModelError, match="made with other data, preset or options; start without --resume"):
        run(resume=True, fingerprint="other")


def test_there_must_be_something_to_resume_from(run):
    with pytest.raises(ModelError, match="no checkpoint to resume from"):
        run(resume=True)


@pytest.mark.parametrize("content", [b"", b"words", b"PK\x03\x04words"], ids=["empty", "words", "broken-zip"])
def test_a_broken_checkpoint_is_refused_in_words(run, tmp_path, content):
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(ModelError, match="not a checkpoint that can be read"):
        run(resume=True)


def test_a_new_training_takes_the_place_of_the_old_checkpoint(run, tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"words")
    whole = run()
    assert_same(run(resume=True), whole)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


# --- devices and precisions ---


def test_a_device_that_is_not_there_is_named_with_those_that_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ModelError, match=r"device: 'cuda' is not on this machine; allowed here: auto, cpu$"):
        choose_device("cuda", "fp32")
    assert choose_device("auto", "fp32") == "cpu"


def test_auto_is_the_accelerator_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto", "fp16") == "mps"
    assert choose_device("cpu", "fp32") == "cpu"


def test_a_precision_that_the_device_lacks_is_refused(run):
    with pytest.raises(ModelError, match="precision: 'fp16' on cpu; allowed there: fp32, bf16"):
        run(replace(CONFIG, precision="fp16"))


def test_half_precision_learns_and_leaves_whole_weights(fresh, examples, validate, run):
    computed = []

    def watched(network):
        network.head.register_forward_hook(lambda *args: computed.append(args[-1].dtype))
        return network

    config = replace(CONFIG, precision="bf16", epochs=3, learning_rate=1e-2)
    progress = run(config, network=watched(fresh()))
    assert torch.bfloat16 in computed
    assert progress.history[-1]["loss"] < progress.history[0]["loss"]
    assert {weight.dtype for name, weight in progress.best_weights.items() if "num_batches" not in name} == {
        torch.float32
    }
    once = replace(config, epochs=1)
    assert run(once).history != run(replace(once, precision="fp32")).history


# --- the log ---


def logged(folder):
    """What TensorBoard would show: by name the (step, value) pairs."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {name: [(each.step, each.value) for each in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_an_interrupted_log_goes_on_as_if_it_had_not_been(run, validate, tmp_path):
    def log(name):
        return Curves(tmp_path / name)

    whole = log("whole")
    progress = run(curves=whole)
    whole.close()
    done = []

    def interrupt(network):
        if len(done) == 2:
            raise Interrupted
        done.append(1)
        return validate(network)

    broken = log("broken")
    with pytest.raises(Interrupted):
        run(validate=interrupt, curves=broken)
    broken.close()
    resumed = log("broken")
    run(resume=True, curves=resumed)
    resumed.close()
    found = logged(tmp_path / "broken")
    assert found == logged(tmp_path / "whole")
    assert [step for step, _ in found["loss"]] == list(range(1, 17))
    assert [step for step, _ in found["validation/image+text"]] == [4, 8, 12, 16]
    expected = [epoch["validation image"] for epoch in progress.history]
    assert [value for _, value in found["validation/image"]] == pytest.approx(expected)
    rates = [value for _, value in found["learning rate/group 0"]]
    assert rates[0] == pytest.approx(CONFIG.learning_rate)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0)


def test_a_new_training_begins_a_new_log(run, tmp_path):
    for _ in range(2):
        curves = Curves(tmp_path / "log")
        run(replace(CONFIG, epochs=1), curves=curves)
        curves.close()
    assert len(list((tmp_path / "log").iterdir())) == 1


def test_without_tensorboard_the_message_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ModelError, match=r"pip install 'polymodal\[tensorboard\]'"):
        Curves(tmp_path)


# --- the objective ---


class Readable(torch.nn.Module):
    """A network whose logits are the sum of what is present: expected losses can be written down."""

    def __init__(self):
        super().__init__()
        self.fusion = type("Fusion", (), {"width": 2})()
        self.head = self
        self.scale = torch.nn.Parameter(torch.ones(()))

    def encode(self, name, part):
        return part["values"] * self.scale

    def fuse(self, embeddings, present):
        assert present.any(dim=1).all()
        return sum(each * present[:, [column]] for column, each in enumerate(embeddings.values()))

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
        "inputs": {name: {"values": values[name][each]} for name, each in rows.items() if each},
        "rows": {name: torch.tensor(each) for name, each in rows.items() if each},
        "present": present,
        "targets": TARGETS,
    }


def loss(logits, rows=(0, 1)):
    return functional.cross_entropy(logits, TARGETS[list(rows)])


@pytest.mark.parametrize("dropout", [0.0, 0.3, 1.0])
def test_modality_dropout_is_computed_and_not_sampled(dropout):
    objective = Objective(Readable(), ("image", "text"), TrainingConfig(modality_dropout=dropout, smoothing=0.0))
    expected = (1 - dropout) * loss(IMAGE + TEXT) + dropout / 2 * (loss(IMAGE) + loss(TEXT))
    assert_close(objective(batch_of()), expected)
    assert_close(objective(batch_of()), objective(batch_of()))


def test_a_row_that_lacks_a_modality_counts_where_something_is_left_of_it():
    objective = Objective(Readable(), ("image", "text"), TrainingConfig(modality_dropout=0.4, smoothing=0.0))
    both = torch.stack([IMAGE[0] + TEXT[0], TEXT[1]])
    expected = 0.6 * loss(both) + 0.2 * loss(IMAGE[[0]], [0]) + 0.2 * loss(TEXT)
    assert_close(objective(batch_of(image=(0,))), expected)


def test_a_batch_without_any_picture_is_learned_from_its_texts():
    objective = Objective(Readable(), ("image", "text"), TrainingConfig(modality_dropout=0.4, smoothing=0.0))
    found = objective(batch_of(image=()))
    assert_close(found, (0.6 + 0.2) * loss(TEXT))
    found.backward()


def test_a_single_modality_is_never_dropped():
    objective = Objective(Readable(), ("text",), TrainingConfig(modality_dropout=0.9, smoothing=0.0))
    batch = {**batch_of(), "present": torch.ones(2, 1, dtype=torch.bool)}
    assert_close(objective(batch), loss(TEXT))


@pytest.mark.parametrize("order", ["a", "ab", "abc", "abcdefgh"])
def test_sets_of_modalities_are_weighted_as_probabilities(order):
    weights = Objective(Readable(), tuple(order), TrainingConfig(modality_dropout=0.4)).weights()
    assert sum(weight for _, weight in weights) == pytest.approx(1)
    assert len(weights) == {1: 1, 2: 3}.get(len(order), 1 + SAMPLED_SETS)
    assert all(names for names, _ in weights)
    assert [names for names, _ in weights].count(set(order)) == 1


def test_two_modalities_draw_nothing_by_chance():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    Objective(Readable(), ("image", "text"), TrainingConfig(modality_dropout=0.4))(batch_of())
    assert torch.equal(torch.get_rng_state(), before)


def test_sampled_sets_are_those_of_the_seed_and_estimate_the_expectation_without_bias():
    objective = Objective(Readable(), ("a", "b", "c"), TrainingConfig(modality_dropout=0.6))
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


def test_a_network_of_three_modalities_learns_from_sampled_sets():
    objective = Objective(Readable(), ("image", "text", "audio"), TrainingConfig(modality_dropout=0.4, smoothing=0.0))
    batch = batch_of()
    batch["present"] = torch.tensor([[True, True, False]] * 2)
    torch.manual_seed(0)
    found = torch.stack([objective(batch) for _ in range(3000)]).mean()
    # Image or text, alone or with the audio that no row has; both; of audio alone nothing is left.
    sets = [loss(IMAGE), loss(TEXT), loss(IMAGE), loss(TEXT), loss(IMAGE + TEXT)]
    assert_close(found, 0.6 * loss(IMAGE + TEXT) + 0.4 / 6 * sum(sets), atol=0.01, rtol=0)


def test_class_weights_stand_in_the_order_of_the_labels():
    config = TrainingConfig(modality_dropout=0.0, smoothing=0.0, class_weights={"tomato": 3.0, "sea": 0.5})
    objective = Objective(Readable(), ("image", "text"), config, labels=("sea", "tomato"))
    each = functional.cross_entropy(IMAGE + TEXT, TARGETS, reduction="none")
    assert_close(objective(batch_of()), (0.5 * each[0] + 3.0 * each[1]) / 2)


def test_a_score_that_is_no_number_is_never_the_best(run):
    scores = iter([math.nan, 0.2, math.nan, 0.1])
    progress = run(validate=lambda _: {"image": next(scores)})
    assert (progress.best_epoch, progress.best_score) == (2, 0.2)


# --- batches ---


def flat(batch):
    """Every tensor of a batch, by its place."""
    found = {}
    for key, value in batch.items():
        found |= (
            {f"{key}.{name}": each for name, each in flat(value).items()} if isinstance(value, dict) else {key: value}
        )
    return found


def assert_same_batches(ones, others):
    for one, other in zip(ones, others, strict=True):
        assert flat(one).keys() == flat(other).keys()
        assert all(torch.equal(tensor, flat(other)[name]) for name, tensor in flat(one).items())


def test_any_number_of_workers_makes_the_same_batches(examples):
    alone = list(Batches(examples, CONFIG, workers=1).of(2))
    assert_same_batches(alone, list(Batches(examples, CONFIG, workers=5).of(2)))
    assert [len(batch["targets"]) for batch in alone] == [6, 6, 6, 6]


@pytest.mark.parametrize("changed", ["epoch", "seed"])
def test_another_epoch_and_another_seed_make_other_batches(examples, changed):
    ones = Batches(examples, CONFIG, workers=1).of(0)
    others = (
        Batches(examples, CONFIG, workers=1).of(1)
        if changed == "epoch"
        else Batches(examples, replace(CONFIG, seed=4), workers=1).of(0)
    )
    with pytest.raises(AssertionError):
        assert_same_batches(ones, others)


def test_an_epoch_has_every_training_row_once(examples):
    config = replace(CONFIG, augment=(), batch_size=5)
    batches = list(Batches(examples, config, workers=2).of(0))
    found = sorted(tuple(row.flatten().tolist()) for batch in batches for row in batch["inputs"]["image"]["pixels"])
    stored = [row for row in examples.split("train") if examples.stores["image"].has(row)]
    assert found == sorted(tuple(examples.stores["image"][row].flatten().tolist()) for row in stored)


def test_workers_make_batches_at_the_same_time(examples, monkeypatch):
    """Each waits for another one to begin: in turn, they would wait for ever."""
    meeting = threading.Barrier(2, timeout=20)
    whole = loop.collate
    monkeypatch.setattr(loop, "collate", lambda *args: meeting.wait() is not None and whole(*args))
    assert len(list(Batches(examples, CONFIG, workers=2).of(0))) == 4


def test_only_a_few_batches_are_made_ahead(examples, monkeypatch):
    made = []
    whole = loop.collate
    monkeypatch.setattr(loop, "collate", lambda *args: made.append(1) or whole(*args))
    batches = Batches(examples, replace(CONFIG, batch_size=2), workers=1)
    reader = batches.of(0)
    next(reader)
    reader.close()  # as when a training is interrupted; waits for what is being made
    assert len(batches) == 12
    assert len(made) <= 3


def test_a_broken_batch_is_reported_to_the_loop(examples, monkeypatch):
    def broken(*_):
        raise ValueError("no such picture")

    monkeypatch.setattr(loop, "collate", broken)
    with pytest.raises(ValueError, match="no such picture"):
        list(Batches(examples, CONFIG, workers=2).of(0))


def test_a_batch_holds_each_modality_of_the_rows_that_have_it(examples):
    rows = examples.split("train")[:6]
    batch = collate(examples, rows)
    for column, name in enumerate(("image", "text")):
        here = [index for index, row in enumerate(rows) if examples.stores[name].has(row)]
        assert batch["rows"][name].tolist() == here
        assert batch["present"][:, column].nonzero()[:, 0].tolist() == here
        assert len(next(iter(batch["inputs"][name].values()))) == len(here)
    assert batch["targets"].tolist() == examples.targets[rows].tolist()


def test_rows_without_pictures_make_a_batch_without_pictures(examples):
    rows = [row for row in examples.split("train") if "image" not in examples.rows[row].inputs]
    batch = collate(examples, rows, torch.Generator())
    assert set(batch["inputs"]) == {"text"}
    assert not batch["present"][:, 0].any()
