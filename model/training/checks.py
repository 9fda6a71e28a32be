"""Checks of data sets before training.

Errors prevent a training. Warnings are about data that may be correct, but that can make metrics look better, or mean less, than
they seem to.
"""

import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from polymodal.model.faults import Fault, Faults
from polymodal.model.manifest import SPLITS, CheckResult, Manifest, ManifestError, Row, read_manifest, read_rows
from polymodal.model.modalities import MODALITIES, Input
from polymodal.model.progress import track, warn
from polymodal.model.targets import DEFAULT_TARGET, TARGETS
from polymodal.model.targets.contract import WrongCell
from polymodal.model.training.examples import Examples, prepared
from polymodal.model.training.presets import presets_of
from polymodal.model.training.splits import label_counts, split_rows, with_splits
from polymodal.model.training.usable import check_modalities, learned_modalities, usable, usable_rows

NAMED: Final = 5  # most words, or pairs of near duplicates, that a warning names; the rest is counted

# A word is suspicious if groups with it almost always have the label (precision), if there are many of them, if they are much of
# the label's groups (recall), and if that is unlikely by chance for any word of the vocabulary. For words of the label's own name
# the limits are lower.
LEAK_GROUPS: Final = 20
LEAK_PRECISION: Final = 0.99
LEAK_RECALL: Final = 0.10
OWN_NAME_GROUPS: Final = 5
OWN_NAME_PRECISION: Final = 0.90
CHANCE: Final = 0.001

Fingerprints = dict[str, dict[int, Any]]
"""Fingerprints of the modality's module `near_duplicates`, by modality and row number."""

_WORD: Final = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class Inspection:
    """A manifest with the results of all checks."""

    rows: tuple[Row, ...]
    """Usable rows, with the split that a training would use unless errors prevent it."""
    target: str
    result: CheckResult

    def summary(self) -> str:
        """Return text for a terminal: rows by label and split, then every kind of warning and error."""
        rows, counts = self._rows_by_split(), self._labels_by_split()
        labels = sorted({label for numbers in counts.values() for label in numbers})
        table = [
            ["label", *rows],
            *([label, *(str(numbers.get(label, 0)) for numbers in counts.values())] for label in labels),
            ["all rows", *map(str, rows.values())],
        ]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in table]
        lines += [f"warning: {warning}" for warning in Faults(self.result.warnings).lines()]
        lines += [f"error: {error}" for error in Faults(self.result.errors).lines()]
        numbers = {"error": len(self.result.errors), "warning": len(self.result.warnings)}
        lines.append(", ".join(f"{number} {noun}{'s' * (number != 1)}" for noun, number in numbers.items()))
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Return the same as JSON-ready values."""
        return {
            "rows": self._rows_by_split(),
            "labels": self._labels_by_split(),
            "errors": list(self.result.errors),
            "warnings": list(self.result.warnings),
        }

    def _rows_by_split(self) -> dict[str, int]:
        """Return the number of rows of each split that has any."""
        numbers = Counter(row.split for row in self.rows)
        return {split: numbers[split] for split in SPLITS if split in numbers}

    def _labels_by_split(self) -> dict[str, dict[str, int]]:
        splits = self._rows_by_split()
        counts = label_counts(self.rows, self.target) if splits else {}
        return {split: counts[split] for split in splits}


def read_checked(
    source: Path,
    target: str,
    split_seed: int,
    workers: int,
    roots: Sequence[Path] = (),
    unlabelled: bool = False,
) -> tuple[Manifest, tuple[str, ...]]:
    """Return a manifest of the usable rows with splits, and the warnings about its splits.

    With `unlabelled`, rows without a label are left out. Raises ManifestError with all errors of `inspect`, unless all of them are
    about inputs, which are rejected when prepared.
    """
    try:
        manifest = with_splits(read_manifest(source, target, roots, unlabelled), split_seed)
        result = check_splits(manifest.rows, target)
    except ManifestError as problem:
        result = CheckResult(list(problem.problems))
    if result.errors:
        everything = inspect(source, target, split_seed, workers, roots, unlabelled).result
        warn(everything.warnings)  # one may explain an error, e.g. labels that look like those of another target
        raise ManifestError(source, everything.errors)
    return usable(manifest), (*manifest.warnings, *result.warnings)


def inspect(
    source: Path,
    target: str,
    split_seed: int,
    workers: int,
    roots: Sequence[Path] = (),
    unlabelled: bool = False,
) -> Inspection:
    """Run every check and return the results, without raising an error. This decodes every input.

    With `unlabelled`, rows without a label are left out; otherwise they are errors.
    """
    records, result = read_rows(source, target, roots, unlabelled)
    rows = tuple(records)
    divided = bool(rows) and not result.cut_off and _can_be_divided(rows, target)
    if divided:
        rows = rows if rows[0].split else split_rows(rows, split_seed, target)
        of_splits = check_splits(rows, target)
        result.errors.extend(of_splits.errors)
        result.warnings.extend([*of_splits.warnings, *check_words(usable_rows(rows), target)])
    root = Path(os.path.abspath(source))
    inputs = _lenient_inputs(learned_modalities(rows))
    broken: set[int] = set()
    modules = {name: module for name in inputs if (module := MODALITIES[name].optional_module("near_duplicates"))}
    fingerprints: Fingerprints = {name: {} for name in modules}
    for number, arrays in prepared(rows, root if root.is_dir() else root.parent, inputs, workers, "checking"):
        if isinstance(arrays, str):
            broken.add(number)
            result.errors.append(arrays)
            continue
        for name in arrays.keys() & modules.keys():
            fingerprints[name][number] = modules[name].fingerprint(arrays[name])
    result.warnings.extend(check_near_duplicates(rows, fingerprints))
    left = [row for number, row in enumerate(rows) if number not in broken]
    if divided and broken:  # without the broken rows there may be other errors
        known = set(result.errors)
        result.errors.extend(error for error in check_splits(left, target).errors if error not in known)
    return Inspection(usable_rows(left) if divided else tuple(left), target, result)


def _can_be_divided(rows: Sequence[Row], target: str) -> bool:
    """Return whether every label can be read, and all rows have a split or none has."""
    if len({row.split in SPLITS for row in rows}) > 1 or rows[0].split not in ("", *SPLITS):
        return False
    try:
        return all(TARGETS[target].cells.validate(row.label) == row.label for row in rows)
    except WrongCell:
        return False


def _lenient_inputs(learned: Sequence[str]) -> dict[str, Input]:
    """Return inputs that reject only what every preset rejects; those of all modalities if none is learned."""
    return {name: presets_of(name).lenient_input() for name in learned or MODALITIES}


# --- splits and labels ---


def check_splits(rows: Sequence[Row], target: str = DEFAULT_TARGET) -> CheckResult:
    """Check rows that all have a split: are there enough to learn, tune and measure with, and is no group in two splits?

    Rows without any learned input are only counted as left out.
    """
    of_modalities = check_modalities(rows)
    rows = usable_rows(rows)
    cells = {split: [row.label for row in rows if row.split == split] for split in SPLITS}
    counts = label_counts(rows, target)
    errors = of_modalities.errors or [
        f"no rows in the {split} split" for split in ("train", "validation") if not cells[split]
    ]
    if cells["train"]:
        errors += TARGETS[target].cells.problems([row.label for row in rows], cells["train"])
    warnings = [hint] if (hint := TARGETS[target].cells.hint([row.label for row in rows])) else []
    warnings += of_modalities.warnings
    for label, count in counts["train"].items():
        lacking = [split for split in ("validation", "test") if cells[split] and label not in counts[split]]
        if lacking:
            splits = f"{' and '.join(lacking)} split{'s' * (len(lacking) > 1)}"
            message = (
                f"label {label!r} has no rows in the {splits}, and {count} in train: learned, but not measured there"
            )
            kind = f"labels have no rows in the {splits}: learned, but not measured there"
            warnings.append(Fault(message, f"{label!r}, {count} in train", kind=kind))
    if cells["train"] and cells["validation"] and not cells["test"]:
        warnings.append(
            "no rows in the test split: the report will have no figures but those that training was steered by"
        )
    return CheckResult([*errors, *_spanning_groups(rows)], warnings)


def _spanning_groups(rows: Sequence[Row]) -> Iterator[str]:
    splits: dict[str, Counter[str]] = {}
    for row in rows:
        splits.setdefault(row.group, Counter())[row.split] += 1
    for group, counts in splits.items():
        if len(counts) > 1:
            numbers = " and ".join(f"{counts[split]} in {split}" for split in SPLITS if split in counts)
            message = f"group {group!r} has rows in several splits, {numbers}"
            allowed, kind = "all rows of a group in one split", "groups have rows in several splits"
            yield Fault(message, repr(group), allowed=allowed, kind=kind)


# --- words ---


def check_words(rows: Sequence[Row], target: str = DEFAULT_TARGET) -> list[str]:
    """Return warnings of words in the texts of the train split that give a label away, one for each label.

    Groups are counted, not rows. Numbers are not checked.
    """
    textual = [name for name, modality in MODALITIES.items() if modality.textual]
    return [warning for name in textual for warning in _check_words(rows, name, target)]


def _check_words(rows: Sequence[Row], modality: str, target: str) -> list[str]:
    texts = sorted((row for row in rows if modality in row.inputs and row.split == "train"), key=lambda row: row.group)
    names = set(TARGETS[target].cells.labels([row.label for row in texts]))
    labelled: Counter[str] = Counter()  # groups with a text, by label
    frequency: Counter[str] = Counter()  # by word
    both: Counter[tuple[str, str]] = Counter()
    groups = 0
    for _, grouped in groupby(texts, key=lambda row: row.group):
        members = list(grouped)
        strata = TARGETS[target].cells.strata([row.label for row in members])
        words = [_words(str(row.inputs[modality])) for row in members]
        pairs = {
            (word, label)
            for members_words, labels in zip(words, strata, strict=True)
            for label in names.intersection(labels)
            for word in members_words
        }
        groups += 1
        labelled.update(names.intersection(label for labels in strata for label in labels))
        frequency.update(set().union(*words))
        both.update(pairs)
    leaking: dict[str, list[tuple[int, str]]] = {}
    for (word, label), count in both.items():
        by_chance = _unlikely(count, frequency[word], labelled[label] / groups)
        own = word in _own_names(label) and by_chance * len(labelled) <= CHANCE
        other = by_chance * len(both) <= CHANCE
        if (own and count >= OWN_NAME_GROUPS and count >= OWN_NAME_PRECISION * frequency[word]) or (
            other and count >= max(LEAK_GROUPS, LEAK_PRECISION * frequency[word], LEAK_RECALL * labelled[label])
        ):
            leaking.setdefault(label, []).append((-count, word))
    return [
        _leak(modality, label, sorted(words), frequency, labelled[label]) for label, words in sorted(leaking.items())
    ]


def _leak(
    modality: str, label: str, words: Sequence[tuple[int, str]], frequency: Mapping[str, int], labelled: int
) -> str:
    named = ", ".join(f"{word!r} ({-count} of {frequency[word]})" for count, word in words[:NAMED])
    more = f" and {len(words) - NAMED} more" if len(words) > NAMED else ""
    return (
        f"words in the {modality}s give label {label!r} away: {named}{more}, in groups with that label of all training groups with "
        f"that word ({labelled} groups have the label); fine only if {modality}s in use contain them too"
    )


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.casefold()))


def _own_names(label: str) -> set[str]:
    """Return the words of a label's name, in singular and plural as English usually forms them."""
    words = _words(label)
    plurals = {word + "s" for word in words} | {word + "es" for word in words} | {word[:-1] + "ies" for word in words}
    singulars = {word.removesuffix(ending) for word in words for ending in ("s", "es")}
    singulars |= {word.removesuffix("ies") + "y" for word in words if word.endswith("ies")}
    return words | plurals | singulars


def _unlikely(count: int, tries: int, share: float) -> float:
    """Return an upper bound of the probability of at least `count` hits in `tries` (Chernoff's, exp(−n·KL))."""
    rate = count / tries
    if rate <= share:
        return 1.0
    divergence = rate * math.log(rate / share)
    if rate < 1:
        divergence += (1 - rate) * math.log((1 - rate) / (1 - share))
    return math.exp(-tries * divergence)


# --- near duplicates ---


def check_examples(examples: Examples, target: str) -> list[str]:
    """Check words and near duplicates of prepared rows."""
    fingerprints = {
        name: {number: module.fingerprint(store[number]) for number in range(len(examples.rows)) if store.has(number)}
        for name, store in examples.stores.items()
        if (module := MODALITIES[name].optional_module("near_duplicates"))
    }
    return [*check_words(examples.rows, target), *check_near_duplicates(examples.rows, fingerprints)]


def check_near_duplicates(rows: Sequence[Row], fingerprints: Fingerprints) -> list[str]:
    """Return warnings of inputs that are nearly equal to one of an earlier split, one for each two splits."""
    return [
        _near_duplicates_warning(modality, *splits, pairs)
        for modality, of_rows in fingerprints.items()
        for splits, pairs in _pairs(rows, modality, of_rows).items()
    ]


def _pairs(
    rows: Sequence[Row], modality: str, fingerprints: Mapping[int, Any]
) -> dict[tuple[str, str], list[tuple[Row, Row]]]:
    """Return rows with their near duplicates in earlier splits, by the two splits."""
    find = MODALITIES[modality].module("near_duplicates").first_near_duplicates
    noun = f"{MODALITIES[modality].common_noun}s"

    def compared() -> Iterator[tuple[Row, Row | None]]:
        known: list[int] = []
        for split in SPLITS:
            others = [number for number in fingerprints if rows[number].split == split]
            duplicates = find([fingerprints[number] for number in known], [fingerprints[number] for number in others])
            for number, index in zip(others, duplicates, strict=True):
                yield rows[number], None if index is None else rows[known[index]]
            known += others

    pairs: dict[tuple[str, str], list[tuple[Row, Row]]] = {}
    for row, earlier in track(compared(), f"comparing {noun}", len(fingerprints), noun):
        if earlier is not None:
            pairs.setdefault((row.split, earlier.split), []).append((row, earlier))
    return pairs


def _near_duplicates_warning(modality: str, split: str, other: str, pairs: Sequence[tuple[Row, Row]]) -> str:
    named = ", ".join(f"{row.id!r} ≈ {earlier.id!r}" for row, earlier in pairs[:NAMED])
    more = f" and {len(pairs) - NAMED} more" if len(pairs) > NAMED else ""
    contradictory = sum(row.label != earlier.label for row, earlier in pairs)
    labels = f" ({contradictory} of them under another label)" if contradictory else ""
    noun = MODALITIES[modality].common_noun
    subject = (
        f"1 {noun} of the {split} split is" if len(pairs) == 1 else f"{len(pairs):,} {noun}s of the {split} split are"
    )
    remedy = "give both one `group`, or leave one out"
    return f"{subject} nearly equal to one of the {other} split{labels}: {named}{more}; {remedy}"
