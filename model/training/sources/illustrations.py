"""The default data set: illustrations with captions, in ten labels by what they show.

`build` fetches the packages, reads the sources, masks captions, groups items that belong together, splits by group, and
writes a folder that `read_manifest` reads. docs/data.md has details and counts.
"""

import filecmp
import hashlib
import json
import shutil
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

from polymodal.model.manifest import SPLITS, Row, read_manifest, write_manifest
from polymodal.model.modalities.image.near_duplicates import Fingerprint
from polymodal.model.training.sources import emoji, openclipart, tuxpaint
from polymodal.model.training.sources.captions import Mask
from polymodal.model.training.sources.grouping import duplicates, group_names, over_the_cap, seen_before
from polymodal.model.training.sources.images import Fingerprints, UnusableImage
from polymodal.model.training.sources.items import Item, Reading
from polymodal.model.training.sources.packages import PACKAGES, Unpacked, obtain
from polymodal.model.training.sources.taxonomy import taxonomy_words
from polymodal.model.training.splits import SHARES

SPLIT_SEED: Final = 0
UNSEEN: Final = tuxpaint.SOURCE  # never trained or tuned on, so it is grouped separately
FAMILIAR: Final = f"{UNSEEN}-familiar"
"""Source name of the unseen items whose image is nearly equal to one of another source."""
UNUSABLE: Final = "picture unusable"


@dataclass(frozen=True, slots=True)
class BuildReport:
    """Summary of a build, as in build.json."""

    manifest: Path
    digest: str
    """The data digest of the manifest."""
    counts: Mapping[str, Mapping[str, Mapping[str, int]]]
    """Source → split → label → number of rows."""
    dropped: Mapping[str, Mapping[str, int]]
    """Source → rule → number of items."""
    packages: tuple[Unpacked, ...]
    problems: tuple[str, ...]
    """One line for each broken item, which is left out, and for each warning."""
    familiar: tuple[str, ...]
    """Ids of the unseen source whose images are nearly equal to one of the other sources; they stay in."""
    pairs: int = 0
    """Number of rows of pairs.csv."""

    def rows(self, split: str, source: str = "") -> int:
        """Count the rows of a split, of one source or of all."""
        sources = [source] if source else list(self.counts)
        return sum(sum(self.counts[name].get(split, {}).values()) for name in sources)


def build(out: Path, cache: Path, *, progress: bool = True) -> BuildReport:
    """Make the data set in the folder `out`; packages and fingerprints stay in `cache` for the next build."""
    console = Console(quiet=not progress)
    cache.mkdir(parents=True, exist_ok=True)
    packages = _obtain_all(cache, console)
    folders = {package.name: package.folder for package in packages}
    stamps = folders["tuxpaint-stamps-default"]
    readings = (
        openclipart.read(
            folders["openclipart-png"] / openclipart.PNG_ROOT, folders["openclipart-svg"] / openclipart.SVG_ROOT
        ),
        emoji.read(
            folders[emoji.NAMES_PACKAGE] / emoji.NAMES_FOLDER,
            {vendor.name: folders[vendor.package] / vendor.folder for vendor in emoji.VENDORS},
        ),
        tuxpaint.read(stamps / tuxpaint.ROOT, cache / "rendered" / stamps.name),
    )
    report = assemble(readings, out, Fingerprints(cache / "fingerprints.json"), packages, console)
    _show(report, console)
    return report


def assemble(
    readings: Sequence[Reading],
    out: Path,
    fingerprints: Fingerprints,
    packages: Sequence[Unpacked] = (),
    console: Console | None = None,
) -> BuildReport:
    """Write the folder `out` from the items of the sources."""
    items = sorted((item for reading in readings for item in reading.items), key=lambda item: item.id)
    labelled = [item for item in items if item.label]
    problems = [package.warning for package in packages if package.warning]
    problems += [problem for reading in readings for problem in reading.problems]
    mask = Mask(taxonomy_words(_folder(item) for item in labelled if item.source != emoji.SOURCE))

    results = _fingerprints_of(items, fingerprints, console or Console(quiet=True))
    dropped: dict[str, Counter[str]] = {item.source: Counter() for item in labelled}
    drawings: list[tuple[Item, Fingerprint]] = []
    for item, result in zip(items, results, strict=True):
        if isinstance(result, UnusableImage):
            problems.append(f"{item.id}: {result}")
            if item.label:
                dropped[item.source][UNUSABLE] += 1
        else:
            drawings.append((item, result))
    usable = [pair for pair in drawings if pair[0].label]

    rows: list[Row] = []
    files: dict[Path, Path] = {}  # target → source
    selected = [
        _select([pair for pair in usable if (pair[0].source == UNSEEN) == unseen], mask, dropped)
        for unseen in (False, True)
    ]
    for item, _, group in chain(*selected):
        image = out / "images" / f"{item.id}{item.image.suffix}"
        files[image] = item.image
        split = "unseen" if item.source == UNSEEN else split_of(group, SPLIT_SEED)
        text = mask.text(item.title, item.keywords)
        inputs: dict[str, Path | str] = {"image": image, **({"text": text} if text else {})}
        rows.append(Row(item.id, inputs, item.label, group, split, item.source, item.licence))
    trained, unseen = ([fingerprint for _, fingerprint, _ in kept] for kept in selected)
    familiar = [selected[1][index][0].id for index in seen_before(unseen, trained)]
    # A separate source, so that the metrics, which are also computed by source, exist without them.
    rows = [replace(row, source=FAMILIAR) if row.id in familiar else row for row in rows]

    pairs = _pairs(rows, [pair for pair in drawings if pair[0].source != UNSEEN], mask, out / "images", files)
    _copy(files, out / "images")
    write_manifest(out / "manifest.csv", rows)
    write_manifest(out / "pairs.csv", pairs)
    report = BuildReport(
        manifest=out / "manifest.csv",
        digest=read_manifest(out / "manifest.csv").digest,
        counts=_counts(rows),
        dropped={source: dict(sorted(rules.items())) for source, rules in sorted(dropped.items())},
        packages=tuple(packages),
        problems=tuple(problems),
        familiar=tuple(familiar),
        pairs=len(pairs),
    )
    text = json.dumps(_as_json(report), indent=2, ensure_ascii=False) + "\n"
    (out / "build.json").write_text(text, encoding="utf-8")
    return report


def _pairs(
    rows: Sequence[Row], drawings: Sequence[tuple[Item, Fingerprint]], mask: Mask, images: Path, files: dict[Path, Path]
) -> list[Row]:
    """Return pairs of an image and a text, for alignment: `rows`, and for the train split more captions and more items.

    Captions of the train split also occur unmasked, because a search has no label that they could give away. Items without a
    label, or beyond the cap of their group, are added, unless they belong together with a row of another split.
    """
    by_id = {row.id: row for row in rows}
    items = [item for item, _ in drawings]
    groups = group_names(items, [fingerprint for _, fingerprint in drawings], mask)
    splits: dict[str, set[str]] = {}
    for item, group in zip(items, groups, strict=True):
        if item.id in by_id:
            splits.setdefault(group, set()).add(by_id[item.id].split)
    pairs = []
    for item, group in zip(items, groups, strict=True):
        row = by_id.get(item.id)
        if row is None and splits.get(group, set()) <= {"train"}:
            image = images / f"{item.id}{item.image.suffix}"
            files[image] = item.image
            row = Row(item.id, {"image": image}, "", group, "train", item.source, item.licence)
        if row is None or row.split != "train":
            continue
        captions = {text: None for text in (row.inputs.get("text"), _caption(item)) if text}
        for number, text in enumerate(captions):
            name = row.id if number == 0 else f"{row.id}#{number + 1}"
            pairs.append(
                replace(row, id=name, inputs={"image": row.inputs["image"], "text": text}, label="", group=group)
            )
    measured = [row for row in rows if row.split != "train" and len(row.inputs) > 1]
    return [*pairs, *(replace(row, label="") for row in measured)]


def _caption(item: Item) -> str:
    """Return title and keywords as they are."""
    return ", ".join(dict.fromkeys(phrase for phrase in (item.title, *item.keywords) if phrase.strip()))


def split_of(group: str, seed: int) -> str:
    """Train, validation or test; depends on the group's name and the seed alone, so added drawings move no others."""
    point = int.from_bytes(hashlib.sha256(f"{seed}:{group}".encode()).digest()[:8]) / 2**64
    for split, share in SHARES.items():
        if point < share:
            return split
        point -= share
    return "test"


def _select(
    pairs: Sequence[tuple[Item, Fingerprint]], mask: Mask, dropped: Mapping[str, Counter[str]]
) -> list[tuple[Item, Fingerprint, str]]:
    """Return the items that stay with their groups, in their order; the others are counted in `dropped`."""
    # Emoji are left out, because two vendors may draw the same flag; in folders, an image that occurs twice is a mistake.
    filed = [pair for pair in pairs if pair[0].source != emoji.SOURCE]
    leaving = duplicates([item for item, _ in filed], [fingerprint for _, fingerprint in filed])
    _count(leaving, dropped)
    kept = [pair for pair in pairs if pair[0].id not in leaving]
    items = [item for item, _ in kept]
    groups = group_names(items, [fingerprint for _, fingerprint in kept], mask)
    surplus = over_the_cap(items, groups)
    _count(surplus, dropped)
    return [(*pair, group) for pair, group in zip(kept, groups, strict=True) if pair[0].id not in surplus]


def _count(leaving: Mapping[str, str], dropped: Mapping[str, Counter[str]]) -> None:
    for name, rule in leaving.items():
        dropped[name.split("/", 1)[0]][rule] += 1


def _fingerprints_of(
    items: Sequence[Item], fingerprints: Fingerprints, console: Console
) -> list[Fingerprint | UnusableImage]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console) as bars, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of large images, which are rejected later, and of odd palettes
        computed = fingerprints.of([item.image for item in items])
        try:
            return list(bars.track(computed, total=len(items), description="computing fingerprints"))
        finally:
            fingerprints.save()  # after an interruption too


def _obtain_all(cache: Path, console: Console) -> list[Unpacked]:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    unpacked = []
    with Progress(*columns, console=console) as bars:
        for package in PACKAGES:
            task = bars.add_task(package.name, total=package.size)

            def report(size: int, task: TaskID = task) -> None:
                bars.update(task, completed=size)

            unpacked.append(obtain(package, cache, report))
    return unpacked


def _folder(item: Item) -> str:
    """Return the folder in its source, e.g. "animals/mammals/dogs"."""
    return Path(item.id).parent.as_posix().removeprefix(item.source).lstrip("/")


def _copy(files: Mapping[Path, Path], folder: Path) -> None:
    """Copy the packages' own bytes (target → source), and remove other files of an earlier build."""
    for target, source in files.items():
        if not target.exists() or not filecmp.cmp(source, target, shallow=False):
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f"{target.name}.partial")
            shutil.copyfile(source, partial)
            partial.replace(target)
    sources = {folder / target.relative_to(folder).parts[0] for target in files}
    paths = chain.from_iterable(source.rglob("*") for source in sources)
    for path in sorted(paths, reverse=True):  # files before their folders
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in files:
            path.unlink()


def _counts(rows: Iterable[Row]) -> dict[str, dict[str, dict[str, int]]]:
    counts: dict[str, dict[str, dict[str, int]]] = {}
    tally = Counter((row.source, SPLITS.index(row.split), row.label) for row in rows)
    for (source, split, label), count in sorted(tally.items()):
        counts.setdefault(source, {}).setdefault(SPLITS[split], {})[label] = count
    return counts


def _as_json(report: BuildReport) -> dict[str, Any]:
    archives = [
        {"name": package.name, "version": package.version, "sha256": package.sha256} for package in report.packages
    ]
    return {
        "data_digest": report.digest,
        "rows": {split: report.rows(split) for split in SPLITS},
        "pairs": report.pairs,
        "counts": report.counts,
        "dropped": report.dropped,
        "archives": archives,
        "familiar": report.familiar,
        "problems": report.problems,
    }


def _show(report: BuildReport, console: Console) -> None:
    columns = [(source, split) for source, splits in report.counts.items() for split in splits]
    labels = sorted({label for source, split in columns for label in report.counts[source][split]})
    table = Table("label", show_footer=True, box=None, padding=(0, 1, 0, 0))  # fits 80 columns
    table.columns[0].footer = "all"
    for source, split in columns:
        table.add_column(f"{source}\n{split}", justify="right", footer=str(report.rows(split, source)))
    for label in labels:
        table.add_row(label, *(str(report.counts[source][split].get(label, 0)) for source, split in columns))
    console.print(table)
    for source, rules in report.dropped.items():
        console.print(f"dropped of {source}: " + (", ".join(f"{n} {rule}" for rule, n in rules.items()) or "none"))
    for package in report.packages:
        console.print(f"{package.name} {package.version} sha256 {package.sha256}", soft_wrap=True)
    for problem in report.problems:
        console.print(f"! {problem}", soft_wrap=True, markup=False)
    if report.familiar:
        console.print(f"{len(report.familiar)} pictures of {UNSEEN} are nearly equal to one of another source")
    console.print(f"rows: {', '.join(f'{report.rows(split):,} {split}' for split in SPLITS)}")
    console.print(f"pairs of an image and a text: {report.pairs:,}")
    console.print(f"data digest {report.digest}", soft_wrap=True)
