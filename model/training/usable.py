"""Usable rows of a manifest: those with a modality that some training row has, which the network learns."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from polymodal.model.config import sets_to_measure
from polymodal.model.manifest import SPLITS, CheckResult, Manifest, Row, data_digest
from polymodal.model.modalities import MODALITIES

MEASURED: Final = ("validation", "test")


def learned_modalities(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the modalities that any training row has; others can't be learned."""
    return tuple(name for name in MODALITIES if any(name in _has(row) for row in rows if row.split == "train"))


def usable_rows(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Return the rows with at least one learned modality; rows without any input have another error."""
    learned = set(learned_modalities(rows))
    return tuple(row for row in rows if not learned or not _has(row) or _has(row) & learned)


def usable(manifest: Manifest) -> Manifest:
    """Return the manifest of the usable rows only, with their data digest."""
    rows = usable_rows(manifest.rows)
    if len(rows) == len(manifest.rows):
        return manifest
    kept = {row.id for row in rows}
    both = zip(manifest.rows, manifest.file_digests, strict=True)
    digests = tuple(digest for row, digest in both if row.id in kept)
    return replace(
        manifest,
        rows=rows,
        file_digests=digests,
        digest=data_digest(rows, (manifest.root, *manifest.allowed), digests),
    )


def check_modalities(rows: Sequence[Row]) -> CheckResult:
    """Report rows that are left out, inputs that are not used, and sets of inputs that a split cannot measure."""
    learned = learned_modalities(rows)
    if not learned:  # another check reports that nothing can be learned
        return CheckResult()
    used = usable_rows(rows)
    filled = {row.split for row in used}
    errors = [
        f"no usable rows in the {split} part: none of its {count} has {_one_of(learned)}, which the train part has; "
        f"allowed: rows with {_one_of(learned)}"
        for split, count in Counter(row.split for row in rows).items()
        if split == "validation" and split not in filled
    ]
    warnings = [*_unlearned(rows, learned), *_unmeasured(used, learned)]
    return CheckResult(errors, warnings)


def _unlearned(rows: Sequence[Row], learned: tuple[str, ...]) -> Iterator[str]:
    for name in MODALITIES:
        having = [row for row in rows if name in _has(row)]
        if name in learned or not having:
            continue
        left_out = Counter(row.split for row in having if not _has(row) & set(learned))
        found = f"no row of the train part has {_noun(name)}, so the network will not take one"
        if left_out:
            counts = " and ".join(f"{left_out[split]} in {split}" for split in SPLITS if split in left_out)
            found += f"; rows that have nothing else are left out, {counts}"
        if others := len(having) - left_out.total():
            found += f"; in {others} other row{'s' * (others != 1)} the {name} is not used"
        yield found


def _unmeasured(rows: Sequence[Row], learned: tuple[str, ...]) -> Iterator[str]:
    """Yield sets of modalities that requests may have, but no row of a split to measure them on."""
    sets = {split: {_has(row) for row in rows if row.split == split} for split in MEASURED}
    for key in sets_to_measure(learned, (_has(row) for row in rows)):
        names = key.split("+")
        lacking = [split for split in MEASURED if sets[split] and not any(has.issuperset(names) for has in sets[split])]
        if lacking:
            effect = "neither calibrated nor measured" if lacking[0] == "validation" else "not measured"
            parts = f"{' and '.join(lacking)} part{'s' * (len(lacking) > 1)}"
            given = " and ".join(map(_noun, names))
            yield f"no row of the {parts} has {given}{' together' * (len(names) > 1)}: answers from that are {effect} there"


def _has(row: Row) -> frozenset[str]:
    return frozenset(row.inputs)


def _noun(name: str) -> str:
    return MODALITIES[name].noun


def _one_of(names: Sequence[str]) -> str:
    return " or ".join(map(_noun, names))
