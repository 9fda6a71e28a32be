"""Faults around the service or inside it: disks, logs, bundles, memory, descriptors, clocks, decoders and runtimes.

With real processes. Each test states what the service must still do.
"""

import ast
import contextlib
import io
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from PIL import Image

from benchmarks.servers import free_port
from polymodal.model import load_bundle
from tests.bundle_files import update_sums
from tests.serving import PROJECT, SERVE, SERVE_TOY, Service, post, running

FAULTS = '''
"""Python runs this at the start of every process that has its folder in PYTHONPATH; it only changes workers."""

import sys

if "polymodal.app.workers" in sys.orig_argv:
    import ctypes, time
    from polymodal.model.kinds.network import Network

    def break_on(text):
        if "fails" in text:
            raise RuntimeError("secret: /etc/passwd")
        if "hangs" in text:
            time.sleep(3600)
        if "crashes" in text:
            ctypes.string_at(0)

    prepare, encode, marked = Network.prepare, Network.encode, {}

    def prepare_or_break(self, inputs, *others):
        text = inputs.get("text", "")
        text = text if isinstance(text, str) else text.decode()
        if "decoding" in text:
            break_on(text)
        sample = prepare(self, inputs, *others)
        if "computing" in text:
            marked[id(sample)] = text
        return sample

    def encode_or_break(self, modality, samples):
        for sample in samples:
            break_on(marked.pop(id(sample), ""))
        return encode(self, modality, samples)

    Network.prepare, Network.encode = prepare_or_break, encode_or_break
'''

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and descriptors as Linux has them")
UNPRIVILEGED = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
"""Before a command: file permissions hold for root too."""


@pytest.fixture
def start(start_service):
    """`start(*command, **options)`: a service on a port that does not depend on its log, which may be lost."""
    return lambda *command, **options: start_service(*command, port=free_port(), **options)


# --- the log ---


def pipe_without_reader(closed: bool) -> int:
    """Return the writing end of a pipe whose reading end is closed, or never read."""
    reading, writing = os.pipe()
    if closed:
        os.close(reading)
    else:
        os.set_blocking(writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, b"x" * 4096)
        os.set_blocking(writing, True)
        os.set_inheritable(reading, True)
    return writing


@pytest.mark.parametrize("output", ["full-disk", "closed", "reader-gone", "reader-asleep"])
def test_a_log_that_cannot_be_written_stops_nothing(start, output):
    if output == "closed":
        service = start("sh", "-c", 'exec "$@" >&-', "sh", *SERVE_TOY)
    else:
        full = output == "full-disk"
        descriptor = os.open("/dev/full", os.O_WRONLY) if full else pipe_without_reader(output == "reader-gone")
        service = start(*SERVE_TOY, stdout=descriptor)
        os.close(descriptor)
    lost = service.metric("polymodal_log_lines_lost_total")
    assert [service.classify(text).status_code for text in ("red", "red " * 5, "green")] == [200, 500, 200]
    assert service.metric("polymodal_log_lines_lost_total") >= lost + 4  # a line each, and the traceback of the 500
    service.stop()


def test_a_truncated_line_does_not_spoil_the_next_one(monkeypatch, tmp_path):
    from polymodal.app.observe.logs import Output

    output, file = Output(), tmp_path / "log"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with file.open("w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        output.line("first")
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
        try:
            output.line("this one is too long for the disk")
            output.line("and now it is full")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        output.line("last")
    assert file.read_text() == "first\nthis\nlast\n"
    assert output.lost == 2


# --- the disk ---


def test_the_service_needs_no_writable_folder_file_or_log(start, tiny_bundle, eventually):
    """No permission to write in its working directory, home and TMPDIR, no byte into any file, and a log that can't be written.

    It even restarts a worker that has died.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        Path("/dev/full").open("wb") as full,
    ):
        shutil.copytree(tiny_bundle, f"{folder}/bundle")
        read_only = Path(folder) / "read-only"
        read_only.mkdir(mode=0o555)
        service = start(
            *("prlimit", "--fsize=0", *UNPRIVILEGED, *SERVE),
            bundles=f"shapes={folder}/bundle",
            workers=2,
            request_timeout_ms=600_000,
            cwd=read_only,
            env={"HOME": str(read_only), "TMPDIR": str(read_only)},
            stdout=full,
        )
        content = io.BytesIO()
        Image.new("RGB", (400, 300), "red").save(content, "PNG")
        content.write(bytes(2**22))  # so large that starlette's own parser would put it into a file
        image = {"image": ("a.png", content.getvalue(), "image/png")}
        assert post(f"{service.url}/v1/classify", files=image).status_code == 200
        service.workers()[0].kill()
        eventually(lambda: service.metric("polymodal_worker_restarts_total") == 1)
        eventually(lambda: service.metric("polymodal_workers") == 2)
        assert service.classify().status_code == 200
        assert list(read_only.iterdir()) == []
        service.stop()


def test_the_telemetry_of_onnx_runtime_is_off(tmp_path):
    """If it were on, it would create a file when it is imported, before it sends anything."""
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    environment |= {"PYTHONPATH": str(PROJECT), "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", "import polymodal.model.runtimes.onnx_runtime"], env=environment, check=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_the_service_runs_on_a_read_only_file_system(start, tmp_path):
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no permission to mount")
    mount = 'mount -t tmpfs -o ro none "$0" && cd "$0" && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", mount, str(tmp_path), *SERVE_TOY]
    service = start(*command, env={"HOME": str(tmp_path), "TMPDIR": str(tmp_path)})
    assert service.classify().status_code == 200
    service.stop()


# --- bundles ---

SERVE_EACH = """
import contextlib, io, json, sys
from polymodal.app.main import serve
from polymodal.app.settings import BundleSource, Settings
from pathlib import Path
port, *folders = sys.argv[1:]
for folder in folders:
    output, code = io.StringIO(), None
    with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
        try:
            serve(Settings(bundles=(BundleSource("shapes", Path(folder)),), workers=0, port=int(port), log_level="warning"))
        except SystemExit as end:
            code = end.code
    print(json.dumps([folder, code, output.getvalue()]))
"""
FILES = (
    "README.md", "SHA256SUMS", "config.json", "golden.json", "onnx/head.onnx", "onnx/image.int8.onnx", "onnx/image.onnx",
    "onnx/text.int8.onnx", "onnx/text.onnx", "report.json", "tokenizer.json", "weights.safetensors",
)  # fmt: skip
JSON_FILES = [file for file in FILES if file.endswith(".json")]


def write(bundle: Path, file: str, content: bytes) -> None:
    (bundle / file).write_bytes(content)
    update_sums(bundle)


def flip_a_bit(bundle: Path, file: str) -> None:
    content = bytearray((bundle / file).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / file).write_bytes(content)


def truncate(bundle: Path, file: str) -> None:
    content = (bundle / file).read_bytes()
    (bundle / file).write_bytes(content[: len(content) // 2])


def change_version(bundle: Path) -> None:
    write(bundle, "config.json", json.dumps(json.loads((bundle / "config.json").read_text()) | {"format": 99}).encode())


def change_sum(bundle: Path) -> None:
    sums = (bundle / "SHA256SUMS").read_text()
    (bundle / "SHA256SUMS").write_text(re.sub(r"[0-9a-f]{64}  config", f"{'0' * 64}  config", sums))


def empty(bundle: Path) -> None:
    shutil.rmtree(bundle)
    bundle.mkdir()


DAMAGES = {
    **{f"{file}-missing": (lambda bundle, file=file: (bundle / file).unlink(), file) for file in FILES},
    **{f"{file}-one-bit": (lambda bundle, file=file: flip_a_bit(bundle, file), "altered|SHA256SUMS") for file in FILES},
    **{f"{file}-cut": (lambda bundle, file=file: truncate(bundle, file), "altered|SHA256SUMS") for file in FILES},
    **{f"{file}-not-json": (lambda bundle, file=file: write(bundle, file, b"{"), file) for file in JSON_FILES},
    **{f"{file}-other-json": (lambda bundle, file=file: write(bundle, file, b"[7]"), file) for file in JSON_FILES},
    **{
        f"{file}-garbage": (lambda bundle, file=file: write(bundle, file, b"\x07" * 99), file)
        for file in FILES
        if file.endswith((".onnx", ".safetensors")) and file not in ("onnx/image.onnx", "onnx/text.onnx")
    },
    "weights-cut-with-right-sums": (
        lambda bundle: [truncate(bundle, "weights.safetensors"), update_sums(bundle)],
        "weights",
    ),
    "unknown-version": (change_version, "format 99; this release reads format"),
    "wrong-digest": (change_sum, "config.json was altered"),
    "empty": (empty, "SHA256SUMS is missing"),
    "folder-not-readable": (lambda bundle: bundle.chmod(0), "SHA256SUMS: cannot be read: Permission denied"),
    "file-not-readable": (
        lambda bundle: (bundle / "weights.safetensors").chmod(0),
        "weights.safetensors: cannot be read: Permission denied",
    ),
}


@pytest.fixture(scope="module")
def refusals(tiny_bundle, tmp_path_factory) -> Iterator[dict[str, tuple[object, str, Path]]]:
    """Exit code, output and folder of each damaged bundle, all served by one process, one after the other."""
    folders = {name: tmp_path_factory.mktemp("damaged") / "bundle" for name in DAMAGES}
    for name, folder in folders.items():
        shutil.copytree(tiny_bundle, folder)
        DAMAGES[name][0](folder)
    with socket.create_server(("127.0.0.1", 0)) as holder:  # opening this port would be another failure
        done = subprocess.run(
            [
                *UNPRIVILEGED,
                sys.executable,
                "-c",
                SERVE_EACH,
                str(holder.getsockname()[1]),
                *map(str, folders.values()),
            ],
            env=os.environ | {"PYTHONPATH": str(PROJECT)},
            capture_output=True,
            text=True,
            check=False,
        )
    for folder in folders.values():
        folder.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    results = {folder: (code, output) for folder, code, output in map(json.loads, done.stdout.splitlines())}
    return {name: (*results[str(folder)], folder) for name, folder in folders.items()}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_bundle_is_refused_with_one_line_that_names_it_before_the_port_opens(refusals, damage):
    code, output, folder = refusals[damage]
    (line,) = output.splitlines()
    assert line.startswith(f"polymodal: {folder}"), line
    assert re.search(DAMAGES[damage][1], line), line
    assert code == 1


def test_a_bundle_that_is_deleted_while_it_is_served_is_still_served(start, bundle_copy, eventually):
    service = start(bundles=f"shapes={bundle_copy}", workers=2, request_timeout_ms=600_000)
    shutil.rmtree(bundle_copy)
    first, second = service.workers()
    first.kill()
    (event, *_) = eventually(lambda: service.events("worker_not_started"))
    assert event["problem"].startswith(f"{bundle_copy}: no such folder")
    assert {service.classify().status_code for _ in range(5)} == {200}
    assert service.get("/readyz").status_code == 200
    assert service.metric("polymodal_workers") == 1
    assert second.is_running()
    service.stop()


# --- memory and descriptors ---


def test_with_few_descriptors_the_clients_that_wait_longest_are_disconnected_and_later_ones_are_served(start):
    service = start("prlimit", "--nofile=64", *SERVE_TOY)
    assert service.classify().status_code == 200  # Python opens files for what it does for the first time
    head = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n"
    with contextlib.ExitStack() as clients:
        connections = [
            clients.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=60)) for _ in range(100)
        ]
        connections[-1].sendall(head + b'{"text": "red"}')
        assert connections[-1].recv(65536).startswith(b"HTTP/1.1 200")
        assert connections[0].recv(65536) == b""
    service.wait_until_ready()
    assert service.classify().status_code == 200
    service.stop()


# --- a decoder or a runtime that fails, hangs, crashes ---

TEXTS = ("red", "blue, deep water", "a ripe fruit")


@pytest.fixture(scope="module")
def expected(tiny_bundle) -> dict[str, dict[str, float]]:
    """The scores of TEXTS."""
    predictor = load_bundle(tiny_bundle, threads=1)
    return {text: dict(predictor.predict([predictor.prepare({"text": text})])[0].scores) for text in TEXTS}


@pytest.fixture(scope="module")
def breakable(tiny_bundle, tmp_path_factory) -> Iterator[Service]:
    """A service whose workers fail, hang or crash when a text contains these words."""
    folder = tmp_path_factory.mktemp("faults")
    (folder / "sitecustomize.py").write_text(FAULTS)
    with running(
        *("prlimit", "--core=0", *SERVE),
        env={"PYTHONPATH": f"{folder}:{PROJECT}"},
        bundles=f"shapes={tiny_bundle}",
        workers=2,
        stall_timeout_ms=2000,  # the machine may be busy
        request_timeout_ms=600_000,
        queue_limit=200,
    ) as service:
        yield service


@contextlib.contextmanager
def other_clients(service: Service, expected) -> Iterator[list[str]]:
    """Four clients that send TEXTS until the block ends, and retry when the service is not ready. Yields their wrong answers."""
    over, wrong, answered = threading.Event(), [], []

    def classify(text: str) -> None:
        while not over.is_set():
            answer = service.classify(text)
            if answer.status_code == 503 and "Retry-After" in answer.headers:
                over.wait(0.05)
                continue
            scores = {label["label"]: label["score"] for label in answer.json().get("labels", [])}
            answered.append(text)
            if scores != pytest.approx(expected[text], abs=1e-6):
                wrong.append(answer.text)

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(classify, TEXTS[number % len(TEXTS)]) for number in range(4)]
        try:
            yield wrong
        finally:
            over.set()
            for client in clients:
                client.result()
    assert answered


def exit_codes(service: Service) -> list[int]:
    """Return the exit codes of all workers that have died."""
    return [event["exit_code"] for event in service.events("worker_died")]


@pytest.mark.parametrize(
    ("text", "exit_code"),
    [
        pytest.param("fails while decoding", None, id="exception-in-decoding"),
        pytest.param("fails while computing", None, id="exception-in-inference"),
        pytest.param("crashes while decoding", -signal.SIGSEGV, id="crash-in-decoding"),
        pytest.param("crashes while computing", -signal.SIGSEGV, id="crash-in-inference"),
        pytest.param("hangs while decoding", -signal.SIGKILL, id="hang-in-decoding", marks=pytest.mark.slow),
        pytest.param("hangs while computing", -signal.SIGKILL, id="hang-in-inference", marks=pytest.mark.slow),
    ],
)
def test_an_item_that_breaks_workers_fails_alone_after_two_of_them_and_others_are_answered(
    breakable, expected, eventually, text, exit_code
):
    eventually(lambda: breakable.metric("polymodal_workers") == 2)
    before = len(exit_codes(breakable))
    with other_clients(breakable, expected) as wrong:
        answer = breakable.classify(text, headers={"X-Request-Id": "breaks-workers"})
        assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
        assert answer.json()["instance"] == "breaks-workers"
        assert "secret" not in answer.text
        eventually(lambda: breakable.metric("polymodal_workers") == 2)
    assert wrong == []
    codes = exit_codes(breakable)[before:]
    if exit_code == -signal.SIGKILL:  # on a busy machine another batch may have seemed to hang too
        assert codes.count(exit_code) >= 2
    else:
        # Three when its first batch had other items: the cause may be any of them.
        assert codes.count(-signal.SIGSEGV) in ([0] if exit_code is None else [2, 3])


def test_an_image_for_which_memory_is_lacking_fails_alone(breakable, expected, eventually):
    eventually(lambda: breakable.metric("polymodal_workers") == 2)
    for worker in breakable.workers():
        worker.rlimit(psutil.RLIMIT_AS, (worker.memory_info().vms + 2**25, psutil.RLIM_INFINITY))
    content = io.BytesIO()
    Image.new("RGB", (4500, 4500), "red").save(content, "PNG")  # 61 MB when it is decoded
    url, large = f"{breakable.url}/v1/classify", {"image": ("large", content.getvalue(), "image/any")}
    deaths = len(exit_codes(breakable))
    with other_clients(breakable, expected) as wrong:
        answer = post(url, files=large)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert wrong == []
    assert set(exit_codes(breakable)[deaths:]) <= {-signal.SIGKILL}  # a batch that seemed to hang on a busy machine
    for worker in breakable.workers():
        worker.rlimit(psutil.RLIMIT_AS, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))
    assert post(url, files=large).status_code == 200


def test_a_lack_of_memory_for_a_header_is_not_reported_as_a_broken_image(monkeypatch, solid):
    from polymodal.model.modalities.image import input as image

    def open_without_memory(file):
        raise MemoryError

    monkeypatch.setitem(image.FORMATS, "image/gif", open_without_memory)
    with pytest.raises(MemoryError):
        image.ImageInput(side=32).decode(solid(file_format="GIF"))


# --- the clock ---


@pytest.mark.parametrize("jump_s", [86_400, -86_400], ids=["forwards", "backwards"])
def test_a_jump_of_the_wall_clock_by_a_day_changes_no_deadline(listening, monkeypatch, jump_s):
    wall_clock = time.time
    with (
        listening(request_timeout_ms=60_000, body_timeout_ms=60_000) as service,
        httpx.Client(base_url=service.url) as client,
    ):
        assert client.post("/v1/classify", json={"text": "red"}).status_code == 200
        body = json.dumps({"text": "green"}).encode()

        def chunks() -> Iterator[bytes]:
            yield body[:5]
            monkeypatch.setattr(time, "time", lambda: wall_clock() + jump_s)
            yield body[5:]

        answer = client.post("/v1/classify", content=chunks(), headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["labels"][0]["label"]) == (200, "green")
        took_ms = sum(map(float, re.findall(r"dur=([\d.]+)", answer.headers["Server-Timing"])))
        assert 0 <= took_ms < 60_000
        assert client.post("/v1/classify", json={"text": "blue"}).status_code == 200


# Keys expire on a date, and a trace has the time of a request for other machines.
MAY_READ_WALL_CLOCK = {
    "app/access/keys.py: datetime.now",
    "app/commands/terminal.py: datetime.now",
    "app/observe/tracing.py: time.time_ns",
    "app/serving/registry.py: time.time",  # when a model was loaded, which clients are shown
}
WALL_CLOCKS = re.compile(r"(^|\.)(time\.(time|time_ns|localtime|gmtime|ctime)|(datetime|date)\.(now|utcnow|today))$")


def test_no_deadline_queue_or_timer_of_the_service_is_computed_from_the_wall_clock():
    uses = set()
    for file in sorted((PROJECT / "app").rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        names = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        names |= {
            f"{node.module}.{alias.name}"
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        uses |= {f"{file.relative_to(PROJECT)}: {name}" for name in names if WALL_CLOCKS.search(name)}
    assert uses == MAY_READ_WALL_CLOCK
