"""Whether a bundle can be served on this machine: its files, its golden inputs, its runtime, one answer."""

import time
from collections.abc import Iterator

from polymodal.app.doctor.result import CheckResult, fail, ok, warn
from polymodal.app.settings import BundleSource, Settings
from polymodal.model import TASKS, BundleError, Description, Model, ModelError, answer_one, load_bundle, tasks_of


def check(source: BundleSource, settings: Settings, loaded: list[Description]) -> Iterator[CheckResult]:
    """Check one bundle, and append its description to `loaded` if it works."""
    area = f"bundle {source.name}"
    try:
        model = load_bundle(source.path, name=source.name, runtime=settings.runtime, threads=settings.inference_threads)
    except BundleError as problem:
        yield fail(area, "files", str(problem), "copy it again, train it again, or name another: POLYMODAL_BUNDLES")
        return
    preferred = model.description.runtime
    yield ok(area, "files", f"unaltered, version {model.description.digest[:12]}…, {source.path}")
    try:
        model.warm_up()
    except BundleError as problem:
        advice = "export its graphs again: polymodal export; or try another POLYMODAL_RUNTIME"
        yield fail(area, "golden inputs", str(problem), advice)
        return
    runtime = model.description.runtime
    if runtime == preferred:
        yield ok(area, "golden inputs", f"{runtime} returns the recorded outputs")
    else:
        advice = "polymodal export, on a machine of this kind; until then answers are right, but slower"
        yield warn(area, "golden inputs", f"{preferred} disagrees on this processor, {runtime} is used instead", advice)
    loaded.append(model.description)
    yield _answer(area, model)


def _answer(area: str, model: Model) -> CheckResult:
    """Check that the model answers about one item."""
    task = TASKS[tasks_of(model.description)[0]]
    inputs = {name: probes[0].small for name, probes in model.probes(task.name).items()}
    started = time.perf_counter()
    try:
        answer_one(model, task, inputs, task.Options())
    except ModelError as problem:
        return fail(area, "one answer", str(problem), "report it, with the bundle's card")
    ms = (time.perf_counter() - started) * 1000
    return ok(area, "one answer", f"{ms:.1f} ms for {' and '.join(inputs)}, alone and on this process' threads")
