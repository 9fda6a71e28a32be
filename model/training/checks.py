"""What is wrong with a data set, or looks as if it were, said before anything is trained on it.

Errors keep a training from starting. Warnings don't: what they name may be right, but makes figures look better, or say less,
than a reader would think.
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

from tokenizers import Tokenizer, models

from model.config import TaskName
from model.faults import Fault, Faults
from model.manifest import SPLITS, CheckResult, Manifest, ManifestError, Row, read_manifest, read_rows
from model.modalities import Input
from model.modalities.image.input import ImageInput
from model.modalities.text.input import TextInput
from model.targets import TARGETS, WrongCell
from model.training.examples import Examples, prepared
from model.training.likeness import RESAVED, Fingerprint, fingerprint_of_pixels, twins
from model.training.progress import bar, warn
from model.training.splits import label_counts, split_rows, with_splits
from model.training.usable import check_modalities, learned_modalities, usable, usable_rows
from model.training.vocabulary import PADDING, UNKNOWN

NAMED: Final = 5  # words, or pairs of pictures, that one warning names; the rest is counted

# A word is suspicious when it says the label all but always (precision), in many groups, for a good part of the label, and
# when chance would hardly do that to any word of the vocabulary. The label's own name is suspicious sooner.
LEAK_GROUPS: Final = 20
LEAK_PRECISION: Final = 0.99
LEAK_RECALL: Final = 0.10
OWN_NAME_GROUPS: Final = 5
OWN_NAME_PRECISION: Final = 0.90
CHANCE: Final = 0.001

_WORD: Final = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class Inspection:
    """A manifest that was looked at from all sides."""

    rows: tuple[Row, ...]
    """Those that can be used, with the split that a training would use, unless errors leave none."""
    task: TaskName
    result: CheckResult

    def summary(self) -> str:
        """All of it for a terminal: rows by label and part, then every kind of warning and of error."""
        parts = [split for split in SPLITS if any(row.split == split for row in self.rows)]
        counts = label_counts(self.rows, self.task) if parts else {}
        labels = sorted({label for part in parts for label in counts[part]})
        table = [
            ["label", *parts],
            *([label, *(str(counts[part].get(label, 0)) for part in parts)] for label in labels),
        ]
        table.append(["all rows", *(str(sum(row.split == part for row in self.rows)) for part in parts)])
        widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
        lines = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in table]
        lines += [f"warning: {warning}" for warning in Faults(self.result.warnings).lines()]
        lines += [f"error: {error}" for error in Faults(self.result.errors).lines()]
        found = (len(self.result.errors), len(self.result.warnings))
        lines.append(
            ", ".join(
                f"{count} {what}{'s' * (count != 1)}" for count, what in zip(found, ("error", "warning"), strict=True)
            )
        )
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """The same for a program."""
        parts = [split for split in SPLITS if any(row.split == split for row in self.rows)]
        counts = label_counts(self.rows, self.task) if parts else {}
        return {
            "rows": {part: sum(row.split == part for row in self.rows) for part in parts},
            "labels": {part: counts[part] for part in parts},
            "errors": list(self.result.errors),
            "warnings": list(self.result.warnings),
        }


def read_checked(
    source: Path, task: TaskName, split_seed: int, workers: int, roots: Sequence[Path] = ()
) -> tuple[Manifest, tuple[str, ...]]:
    """A manifest with splits that can be trained on, of the usable rows alone, and the warnings about its parts.

    Raises ManifestError with everything that `inspect` finds, unless it is the pictures alone: these are decoded later, when they
    are prepared, and refused then.
    """
    try:
        manifest = with_splits(read_manifest(source, task, roots), split_seed)
        result = check_parts(manifest.rows, task)
    except ManifestError as problem:
        result = CheckResult(list(problem.problems))
    if result.errors:
        everything = inspect(source, task, split_seed, workers, roots).result
        warn(everything.warnings)  # one of them may explain an error: labels that look like those of another task
        raise ManifestError(source, everything.errors)
    return usable(manifest), (*manifest.warnings, *result.warnings)


def inspect(source: Path, task: TaskName, split_seed: int, workers: int, roots: Sequence[Path] = ()) -> Inspection:
    """Every check, each picture decoded on the way; nothing is kept and nothing is raised."""
    found, result = read_rows(source, task, roots)
    rows = tuple(found)
    divided = bool(rows) and not result.cut_off and _can_be_divided(rows, task)
    if divided:
        rows = rows if rows[0].split else split_rows(rows, split_seed, task)
        of_parts = check_parts(rows, task)
        result.errors.extend(of_parts.errors)
        result.warnings.extend([*of_parts.warnings, *check_captions(usable_rows(rows), task)])
    root = Path(os.path.abspath(source))
    inputs = _lenient_inputs(learned_modalities(rows))
    broken: set[int] = set()
    prints: dict[int, Fingerprint] = {}
    for number, arrays in prepared(rows, root if root.is_dir() else root.parent, inputs, workers, "checking"):
        if isinstance(arrays, str):
            broken.add(number)
            result.errors.append(arrays)
        elif "image" in arrays:
            prints[number] = fingerprint_of_pixels(arrays["image"])
    result.warnings.extend(check_pictures(rows, prints))
    left = [row for number, row in enumerate(rows) if number not in broken]
    if divided and broken:  # what would be wrong with the rows that are left, if the broken ones were taken out
        known = set(result.errors)
        result.errors.extend(error for error in check_parts(left, task).errors if error not in known)
    return Inspection(usable_rows(left) if divided else tuple(left), task, result)


def _can_be_divided(rows: Sequence[Row], task: TaskName) -> bool:
    """Whether every label can be read, and all rows have a split or none has."""
    if len({row.split in SPLITS for row in rows}) > 1 or rows[0].split not in ("", *SPLITS):
        return False
    try:
        return all(TARGETS[task].checked(row.label) == row.label for row in rows)
    except WrongCell:
        return False


def _lenient_inputs(learned: Sequence[str]) -> dict[str, Input]:
    """Inputs that refuse what every preset refuses, without the vocabulary that a preset would need; all if none is learned."""
    tokenizer = Tokenizer(models.WordLevel({PADDING: 0, UNKNOWN: 1}, unk_token=UNKNOWN))
    inputs: dict[str, Input] = {"image": ImageInput(side=64), "text": TextInput(tokenizer)}
    return {name: each for name, each in inputs.items() if name in learned or not learned}


# --- parts and labels ---


def check_parts(rows: Sequence[Row], task: TaskName = "single-label") -> CheckResult:
    """Rows that all have a split: is there something to learn, to tune and to measure with, and are the parts apart?

    Rows without any input that is learned are counted as left out, and nowhere else.
    """
    of_modalities = check_modalities(rows)
    rows = usable_rows(rows)
    cells = {split: [row.label for row in rows if row.split == split] for split in SPLITS}
    counts = label_counts(rows, task)
    errors = of_modalities.errors or [
        f"no rows in the {split} part" for split in ("train", "validation") if not cells[split]
    ]
    if cells["train"]:
        errors += TARGETS[task].problems([row.label for row in rows], cells["train"])
    warnings = [doubt] if (doubt := TARGETS[task].doubt([row.label for row in rows])) else []
    warnings += of_modalities.warnings
    for label, count in counts["train"].items():
        lacking = [split for split in ("validation", "test") if cells[split] and label not in counts[split]]
        if lacking:
            parts = f"{' and '.join(lacking)} part{'s' if len(lacking) > 1 else ''}"
            found = f"label {label!r} has no rows in the {parts}, and {count} in train: learned, but not measured there"
            kind = f"labels have no rows in the {parts}: learned, but not measured there"
            warnings.append(Fault(found, f"{label!r}, {count} in train", kind=kind))
    if cells["train"] and cells["validation"] and not cells["test"]:
        warnings.append(
            "no rows in the test part: the report will have no figures but those that training was steered by"
        )
    return CheckResult([*errors, *_spanning_groups(rows)], warnings)


def _spanning_groups(rows: Sequence[Row]) -> Iterator[str]:
    parts: dict[str, Counter[str]] = {}
    for row in rows:
        parts.setdefault(row.group, Counter())[row.split] += 1
    for group, counts in parts.items():
        if len(counts) > 1:
            found = " and ".join(f"{counts[split]} in {split}" for split in SPLITS if split in counts)
            found = f"group {group!r} has rows in several parts, {found}"
            allowed, kind = "all rows of a group in one part", "groups have rows in several parts"
            yield Fault(found, repr(group), allowed=allowed, kind=kind)


# --- captions ---


def check_captions(rows: Sequence[Row], task: TaskName = "single-label") -> list[str]:
    """Words in the training texts that give a label away, one warning for each label; groups are counted, not rows.

    A number is given away by no word.
    """
    texts = sorted((row for row in rows if row.text and row.split == "train"), key=lambda row: row.group)
    names = set(TARGETS[task].labels([row.label for row in texts]))
    labelled: Counter[str] = Counter()  # groups with a text, by label
    said: Counter[str] = Counter()  # by word
    both: Counter[tuple[str, str]] = Counter()
    groups = 0
    for _, grouped in groupby(texts, key=lambda row: row.group):
        members = list(grouped)
        strata = TARGETS[task].strata([row.label for row in members])
        words = [_words(row.text or "") for row in members]
        pairs = {
            (word, label)
            for said_here, labels in zip(words, strata, strict=True)
            for label in names.intersection(labels)
            for word in said_here
        }
        groups += 1
        labelled.update(names.intersection(label for labels in strata for label in labels))
        said.update(set().union(*words))
        both.update(pairs)
    telling: dict[str, list[tuple[int, str]]] = {}
    for (word, label), count in both.items():
        by_chance = _unlikely(count, said[word], labelled[label] / groups)
        own = word in _own_names(label) and by_chance * len(labelled) <= CHANCE
        other = by_chance * len(both) <= CHANCE
        if (own and count >= OWN_NAME_GROUPS and count >= OWN_NAME_PRECISION * said[word]) or (
            other and count >= max(LEAK_GROUPS, LEAK_PRECISION * said[word], LEAK_RECALL * labelled[label])
        ):
            telling.setdefault(label, []).append((-count, word))
    return [_leak(label, sorted(words), said, labelled[label]) for label, words in sorted(telling.items())]


def _leak(label: str, words: Sequence[tuple[int, str]], said: Mapping[str, int], labelled: int) -> str:
    told = ", ".join(f"{word!r} ({-count} of {said[word]})" for count, word in words[:NAMED])
    more = f" and {len(words) - NAMED} more" if len(words) > NAMED else ""
    return (
        f"words in the texts give label {label!r} away: {told}{more}, in groups with that label of all training groups with that "
        f"word ({labelled} groups have the label); fine only if texts will say so in use"
    )


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.casefold()))


def _own_names(label: str) -> set[str]:
    """The words of a label's name, in singular and plural as English usually forms them."""
    words = _words(label)
    plurals = {word + "s" for word in words} | {word + "es" for word in words} | {word[:-1] + "ies" for word in words}
    singulars = {word.removesuffix(ending) for word in words for ending in ("s", "es")}
    singulars |= {word.removesuffix("ies") + "y" for word in words if word.endswith("ies")}
    return words | plurals | singulars


def _unlikely(count: int, tries: int, share: float) -> float:
    """At least this many hits in so many tries: an upper bound of its probability (Chernoff's, exp(−n·KL))."""
    rate = count / tries
    if rate <= share:
        return 1.0
    divergence = rate * math.log(rate / share)
    if rate < 1:
        divergence += (1 - rate) * math.log((1 - rate) / (1 - share))
    return math.exp(-tries * divergence)


# --- pictures ---


def check_examples(examples: Examples, task: TaskName) -> list[str]:
    """The checks of captions and pictures, for rows that are prepared already."""
    prints = {}
    if "image" in examples.stores:
        store = examples.stores["image"]
        numbers = [number for number in range(len(examples.rows)) if store.has(number)]
        prints = {number: fingerprint_of_pixels(store[number]) for number in numbers}
    return [*check_captions(examples.rows, task), *check_pictures(examples.rows, prints)]


def check_pictures(rows: Sequence[Row], prints: Mapping[int, Fingerprint]) -> list[str]:
    """Pictures of one part that are nearly equal to one of another; `prints` by row number. One warning for two parts.

    The later part is compared with the earlier ones, so that a picture of the test part is found in what was trained on.
    """
    numbers = {split: [number for number in prints if rows[number].split == split] for split in SPLITS}
    known: list[int] = []
    pairs: dict[tuple[str, str], list[tuple[Row, Row]]] = {}
    with bar() as progress:
        task = progress.add_task("comparing pictures", total=len(prints), unit="pictures")
        for split in SPLITS:
            others = numbers[split]
            found = twins([prints[number] for number in known], [prints[number] for number in others], RESAVED)
            for index, twin in found:
                progress.advance(task)
                if twin is not None:
                    row, other = rows[others[index]], rows[known[twin]]
                    pairs.setdefault((split, other.split), []).append((row, other))
            known += others
    return [_twins_found(*parts, found) for parts, found in pairs.items()]


def _twins_found(split: str, other: str, pairs: Sequence[tuple[Row, Row]]) -> str:
    told = ", ".join(f"{row.id!r} ≈ {twin.id!r}" for row, twin in pairs[:NAMED])
    more = f" and {len(pairs) - NAMED} more" if len(pairs) > NAMED else ""
    contradictory = sum(row.label != twin.label for row, twin in pairs)
    labels = f" ({contradictory} of them under another label)" if contradictory else ""
    pictures = (
        f"1 picture of the {split} part is" if len(pairs) == 1 else f"{len(pairs):,} pictures of the {split} part are"
    )
    remedy = "give both one `group`, or leave one out"
    return f"{pictures} nearly equal to one of the {other} part{labels}: {told}{more}; {remedy}"
