"""Usable rows of a manifest: rows with a learned modality, which is one that some training row has."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from polymodal.model.config import sets_to_measure
from polymodal.model.manifest import SPLITS, CheckResult, Manifest, Row, data_digest
from polymodal.model.modalities import MODALITIES

MEASURED: Final = ("validation", "test")


def learned_modalities(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the modalities that any training row has."""
    return tuple(name for name in MODALITIES if any(name in _has(row) for row in rows if row.split == "train"))


def usable_rows(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Return the rows with a learned modality, and rows without any input, which another check reports."""
    learned = set(learned_modalities(rows))
    return tuple(row for row in rows if not learned or not _has(row) or _has(row) & learned)


def usable(manifest: Manifest) -> Manifest:
    """Return the manifest of the usable rows only, with their data digest."""
    rows = usable_rows(manifest.rows)
    if len(rows) == len(manifest.rows):
        return manifest
    kept = {row.id for row in rows}
    pairs = zip(manifest.rows, manifest.file_digests, strict=True)
    digests = tuple(digest for row, digest in pairs if row.id in kept)
    digest = data_digest(rows, (manifest.root, *manifest.allowed), digests)
    return replace(manifest, rows=rows, file_digests=digests, digest=digest)


def check_modalities(rows: Sequence[Row]) -> CheckResult:
    """Report rows that are left out, inputs that are not used, and sets of inputs that a split cannot measure."""
    learned = learned_modalities(rows)
    if not learned:  # another check reports that nothing can be learned
        return CheckResult()
    used = usable_rows(rows)
    errors = []
    if (count := sum(row.split == "validation" for row in rows)) and not any(row.split == "validation" for row in used):
        allowed = " or ".join(map(_noun, learned))
        errors.append(
            f"no usable rows in the validation split: none of its {count} has {allowed}, which the train split has; "
            f"allowed: rows with {allowed}"
        )
    return CheckResult(errors, [*_unlearned(rows, learned), *_unmeasured(used, learned)])


def _unlearned(rows: Sequence[Row], learned: tuple[str, ...]) -> Iterator[str]:
    for name in MODALITIES:
        having = [row for row in rows if name in _has(row)]
        if name in learned or not having:
            continue
        left_out = Counter(row.split for row in having if not _has(row) & set(learned))
        warning = f"no row of the train split has {_noun(name)}, so the network will not take one"
        if left_out:
            counts = " and ".join(f"{left_out[split]} in {split}" for split in SPLITS if split in left_out)
            warning += f"; rows that have nothing else are left out, {counts}"
        if others := len(having) - left_out.total():
            warning += f"; in {others} other row{'s' * (others != 1)} the {name} is not used"
        yield warning


def _unmeasured(rows: Sequence[Row], learned: tuple[str, ...]) -> Iterator[str]:
    """Yield a warning for each set of modalities that requests may have, but no row of a split."""
    sets = {split: {_has(row) for row in rows if row.split == split} for split in MEASURED}
    for key in sets_to_measure(learned, (_has(row) for row in rows)):
        names = key.split("+")
        lacking = [split for split in MEASURED if sets[split] and not any(has.issuperset(names) for has in sets[split])]
        if lacking:
            effect = "neither calibrated nor measured" if lacking[0] == "validation" else "not measured"
            splits = f"{' and '.join(lacking)} split{'s' * (len(lacking) > 1)}"
            nouns = " and ".join(map(_noun, names)) + " together" * (len(names) > 1)
            yield f"no row of the {splits} has {nouns}: answers from that are {effect} there"


def _has(row: Row) -> frozenset[str]:
    return frozenset(row.inputs)


def _noun(name: str) -> str:
    return MODALITIES[name].noun
