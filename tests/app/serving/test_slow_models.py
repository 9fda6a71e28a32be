"""Models whose items take seconds have workers of their own: nothing else waits for them.

Real processes. `sitecustomize` gives the speech bundle a recogniser that takes its time, in every process that Python starts.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from polymodal.app import main
from polymodal.app.observe.metrics import Metrics
from polymodal.app.settings import BundleSource, Settings
from polymodal.app.workers.supervisor import ProcessSupervisor
from tests.serving import post, running
from tests.speech_models import pause, tone, wav, write_speech

PROJECT = Path(__file__).parents[3]
SLOW_RECOGNISER = """
import time
from polymodal.model import kinds
from tests.speech_models import Script, scripted

class Slow(Script):
    def recognise(self, samples, guidance):
        if len(samples) > 16_000:
            time.sleep(3)
        return super().recognise(samples, guidance)

kinds.KINDS["speech"] = lambda path, name, runtime, threads: scripted(path, Slow(), name=name)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slow")
    (folder / "sitecustomize.py").write_text(SLOW_RECOGNISER)
    write_speech(folder / "speech")
    return folder


def sources(*names, folder, tiny_bundle):
    paths = {"speech": folder / "speech", "tiny": tiny_bundle}
    return tuple(BundleSource(name, paths[name]) for name in names)


def test_slow_models_get_a_supervisor_of_their_own_next_to_others_only(folder, tiny_bundle):
    def sizes(*names, **options):
        settings = Settings(bundles=sources(*names, folder=folder, tiny_bundle=tiny_bundle), **options)
        return [supervisor and supervisor.size for supervisor in main._supervisors(settings, None, Metrics())]

    assert sizes("tiny", "speech", workers=2) == [2, 1]
    assert sizes("tiny", "speech", workers=2, slow_workers=3) == [2, 3]
    assert sizes("tiny", workers=2) == [2, None]
    assert sizes("speech", workers=4) == [1, None]
    assert sizes("tiny", "speech", workers=0) == [1, 1]


def test_a_broken_bundle_is_not_slow(tmp_path):
    supervisor, slow = main._supervisors(Settings(bundles=(BundleSource("a", tmp_path),), workers=1), None, Metrics())
    assert isinstance(supervisor, ProcessSupervisor)
    assert slow is None


@pytest.fixture(scope="module")
def service(folder, tiny_bundle):
    paths = os.pathsep.join(map(str, (folder, PROJECT)))
    bundles = f"tiny={tiny_bundle},speech={folder / 'speech'}"
    with running(cwd=folder, env={"PYTHONPATH": paths}, bundles=bundles, workers=1) as service:
        yield service
        service.stop()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_classification_never_waits_for_a_recording(service):
    with ThreadPoolExecutor(1) as thread:
        long = thread.submit(post, f"{service.url}/v1/transcribe", files={"audio": wav(tone(3))})
        time.sleep(0.3)
        for _ in range(3):
            assert post(f"{service.url}/v1/classify", json={"text": "ripe fruit"}).status_code == 200
        assert not long.done()
        assert long.result().json()["seconds"] == 3.0
    assert len(service.workers()) == 2


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_recording_whose_client_no_longer_waits_is_not_transcribed_to_its_end(service):
    windows = [piece for _ in range(6) for piece in (tone(2), pause(5))]  # 3 s each
    began = time.perf_counter()
    late = post(f"{service.url}/v1/transcribe", files={"audio": wav(*windows)}, headers={"X-Request-Timeout-Ms": "500"})
    assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
    assert post(f"{service.url}/v1/transcribe", files={"audio": wav(tone(0.5))}).status_code == 200
    assert time.perf_counter() - began < 10
