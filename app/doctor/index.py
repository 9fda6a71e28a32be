"""Whether a search index can be searched: its files, and the bundle that it was built with."""

from collections.abc import Iterator, Sequence

from polymodal.app.doctor.result import CheckResult, fail, ok, warn
from polymodal.app.settings import IndexSource
from polymodal.model import Description, SearchIndexError, read_index, rebuild_command


def check(source: IndexSource, loaded: Sequence[Description]) -> Iterator[CheckResult]:
    """Check one index; `loaded` has the bundles that work."""
    area, rebuild = f"index {source.name}", rebuild_command(source.path)
    try:
        index = read_index(source.path)
    except SearchIndexError as problem:
        yield fail(area, "files", str(problem), f"copy it again, or build it again: {rebuild}")
        return
    yield ok(area, "files", f"unaltered, {len(index):,} items of {index.width} numbers, {source.path}")
    served = next((model.name for model in loaded if model.digest == index.digest), None)
    if served:
        yield ok(area, "version", f"that of the bundle {served}")
    else:
        version = f"of {index.model}, version {index.digest[:12]}…, which is none of the bundles"
        yield warn(area, "version", version, f"its searches are refused until it is built again: {rebuild}")
