"""Whether a bundle can be served here: its files, its golden inputs, the runtime that agrees with them, one answer."""

import time
from collections.abc import Iterator

from app.doctor.finding import Finding, fail, ok, warn
from app.settings import BundleSource, Settings
from model import BundleError, Description, ModelError, Predictor, load_bundle


def look(source: BundleSource, settings: Settings, loaded: list[Description]) -> Iterator[Finding]:
    """At one bundle; what could be loaded is described in `loaded` afterwards."""
    area = f"bundle {source.name}"
    try:
        predictor = load_bundle(
            source.path, name=source.name, runtime=settings.runtime, threads=settings.inference_threads
        )
    except BundleError as problem:
        yield fail(area, "files", str(problem), "copy it anew, train it anew, or name another: POLYMODAL_BUNDLES")
        return
    hoped = predictor.description.runtime
    yield ok(area, "files", f"unaltered, version {predictor.description.digest[:12]}…, {source.path}")
    try:
        predictor.warm_up()
    except BundleError as problem:
        advice = "polymodal export makes its graphs anew; or try another POLYMODAL_RUNTIME"
        yield fail(area, "golden inputs", str(problem), advice)
        return
    runtime = predictor.description.runtime
    if runtime == hoped:
        yield ok(area, "golden inputs", f"{runtime} says what was recorded")
    else:
        advice = "polymodal export, on a machine of this kind; until then it is slower, and right"
        yield warn(area, "golden inputs", f"{hoped} disagrees on this processor, {runtime} answers instead", advice)
    loaded.append(predictor.description)
    yield _answer(area, predictor)


def _answer(area: str, predictor: Predictor) -> Finding:
    parts = {name: probes[0].small for name, probes in predictor.probes().items()}
    started = time.perf_counter()
    try:
        predictor.predict([predictor.prepare(parts)])
    except ModelError as problem:
        return fail(area, "one answer", str(problem), "report it, with the bundle's card")
    taken = (time.perf_counter() - started) * 1000
    return ok(area, "one answer", f"{taken:.1f} ms for {' and '.join(parts)}, alone and on this process' threads")
