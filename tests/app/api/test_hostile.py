"""Every hostile upload gets its expected answer, and the service continues. `test_workers` sends the images to a worker process."""

import base64
import json
import socket
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from PIL import Image

from polymodal.app.api.body.form import PART_HEADER_BYTES, PART_HEADERS
from polymodal.app.api.body.json import JSON_DEPTH, JSON_PIECES
from polymodal.app.api.schemas import Problem, schemas_of
from polymodal.app.settings import Settings
from polymodal.model import TASKS
from polymodal.model.modalities.image import metadata
from polymodal.model.modalities.text.input import MOST_MARKS
from tests.hostile import uploads
from tests.hostile.images import jpeg_with, png, segment, solid
from tests.hostile.uploads import IMAGES, TEXTS_AND_BODIES, Upload
from tests.media import saved

ROOT = Path(__file__).parents[3]
GROUPS = {group.__name__: group for group in (*IMAGES, *TEXTS_AND_BODIES)}
DETAILS = {
    "cut_off": [
        "image: 0 bytes; allowed: a whole picture",
        "image: image/jpeg of 3 bytes that is truncated or corrupt",
    ],
    "sizes": ["image: 65,535 × 65,535 px; allowed: at most 50,000,000 pixels"],
    "strangers": [
        "image: bytes of no known picture format; allowed: image/jpeg, image/png",
        "image: application/pdf; allowed: image/jpeg",
    ],
    "texts": [
        "request: neither of the inputs, or only blank ones; allowed: at least one of image, text",
        "text: a NUL character at position 3; allowed: text without NUL characters",
        "text: a byte that is not UTF-8 at position 3; allowed: UTF-8 text",
        "text: a byte that is not utf-16 at position 8; allowed: bytes of the declared charset",
        "text: 20,001 characters; allowed: at most 20,000 characters",
        "text: 257 combining characters in a row; allowed: at most 256",
        "text: more than 262144 bytes; allowed: up to 262144 bytes",
    ],
    "encodings": [
        'image: invalid base64, of two alphabets, with "+" or "/" and with "-" or "_"; allowed: base64 as in RFC 4648',
        "image: invalid base64, of 97 letters, which is one too many or too few",
        "image: invalid base64, whose last letter has bits of no byte",
        'image: invalid base64, with "=" at position 2',
        'image: invalid base64, of 2 letters with 1 "="',
        'image: invalid base64, of 4 letters with 1 "="',
        'image: invalid base64, with " " at position 9',
        r'image: invalid base64, with "\u0000" at position 8',
        'image: invalid base64, with "%" at position 4',
        r'image: invalid base64 or data: URI, with "\u00e9" at position 0',
        "image: a bad percent-escape at position 8",
        "image: a data: URI without a comma",
        "image: a data: URI without ;base64",
        "image: 0 bytes; allowed: a whole picture",
        "image: 11250000 bytes; allowed: up to 10485760 bytes",
    ],
    "documents": [
        "body: no bytes; allowed: a JSON object in UTF-8",
        "body: invalid JSON at line 1, column 15",
        "body: invalid UTF-8 at byte 0",
        "body: a list of 1; allowed: a JSON object",
        "body: JSON nested too deeply; allowed: up to 16 lists and objects within each other",
        "body: JSON of more than 250000 pieces; allowed: up to that many strings, commas and brackets",
        "body: 22020096 bytes; allowed: up to 20971520 bytes",
        'body: field "colour"; allowed: image, text, audio, top_k, threshold, candidate_labels, prior, model',
        'body: field "text" twice; allowed: each field once',
        r'body: field "\ud800", which has half of a surrogate pair; allowed: whole characters',
        "request: neither of the inputs, or only blank ones; allowed: at least one of image, text",
        "text: half of a surrogate pair, or a byte that is not UTF-8, at position 3; allowed: whole characters",
        "text: a NUL character at position 0",
        "text: 7; allowed: a string",
        "text: a list of 1; allowed: a string",
        "text: 300000 bytes; allowed: up to 262144 bytes",
        "image: true; allowed: the image file as a base64 string",
        'top_k: "1"; allowed: an integer from 1 to the number of labels, as JSON writes numbers',
        "top_k: 9999999999999999999999999999999999999999; allowed: an integer from 1 to 3",
        "top_k: a number that is too long; allowed: up to 4300 digits",
        "threshold: -1; allowed: a number from 0 to 1, as JSON writes numbers",
        "threshold: NaN; allowed: JSON, which has no such number",
        'model: "../toy"; allowed: toy',
    ],
    "forms": [
        "body: no closing boundary; allowed: the whole multipart body",
        "body: broken multipart; allowed: parts as in RFC 7578, each with up to 8 header fields of up to 4096 bytes",
        'body: field ""; allowed: image, text, audio, top_k, threshold, candidate_labels, prior, model',
        'body: parameter "name" twice; allowed: each parameter once',
        'body: header field "content-disposition" of one part twice; allowed: each one once',
        'body: content-encoding "gzip" of a part; allowed: parts that are whole and not compressed',
        "text: the field twice; allowed: once",
        'text: parameter "charset" twice; allowed: each parameter once',
        'text: charset "unicode_escape"; allowed: utf-8, utf-16, windows-1252 or another charset of the WHATWG',
        'text: Content-Type "multipart/mixed; boundary=b"; allowed: a file or a text by itself, not several in one',
        'text: Content-Transfer-Encoding "x-uuencode"; allowed: 7bit, 8bit, binary, quoted-printable or base64',
        "text: quoted-printable with a bad escape at position 1; allowed: quoted-printable as in RFC 2045",
        'text: invalid base64, with "%" at position 1',
        "text: 750000 bytes; allowed: up to 262144 bytes",
        "image: more than 10485760 bytes; allowed: up to 10485760 bytes",
        "model: more than 1024 bytes; allowed: up to 1024 bytes",
        'top_k: "1_0"; allowed: an integer from 1 to the number of labels, as JSON writes numbers',
        'threshold: "nan"; allowed: a number from 0 to 1, as JSON writes numbers',
    ],
    "content_types": [
        "Content-Type: none; allowed: multipart/form-data or application/json",
        'Content-Type: "text/plain"; allowed: multipart/form-data or application/json',
        "Content-Type: no boundary; allowed: multipart/form-data; boundary=…",
        "Content-Type: a boundary that is too long; allowed: up to 256 bytes",
        'Content-Type: "application/json; charset=utf-16"; allowed: application/json, which is UTF-8',
        'Content-Type: charset "rot13"; allowed: utf-8',
    ],
}
"""Beginnings of details that clients get, one of each kind; by the group of uploads among whose answers they are."""


def request(upload: Upload) -> dict:
    headers = {} if upload.content_type is None else {"Content-Type": upload.content_type}
    return {"content": upload.content, "headers": headers}


def result_of(response: httpx.Response) -> tuple[str, str]:
    """Check that a response is as OpenAPI describes it; return its status and code, and the problem's detail."""
    body = response.json()
    if response.status_code == 200:
        assert response.headers["Content-Type"] == "application/json"
        assert {"model", "digest", "modalities", "labels"} <= set(body)
        return "200 ok", ""
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = Problem.model_validate(body, strict=True)
    assert problem.status == response.status_code
    assert problem.instance == response.headers["X-Request-Id"]
    assert problem.detail == f"{problem.input}: {problem.found}; allowed: {problem.allowed}"
    assert set(body) <= set(Problem.model_fields)
    assert len(response.content) < 2000, "a problem repeats little of the request"
    return f"{problem.status} {problem.code}", problem.detail


def test_there_are_hundreds_of_uploads_with_unique_names():
    names = Counter(upload.name for upload in uploads.uploads())
    assert names.total() >= 300
    assert [name for name, times in names.items() if times > 1] == []


def test_the_uploads_are_the_same_each_time():
    for group in (uploads.cut_off, uploads.pngs, uploads.texts, uploads.forms):
        assert list(group()) == list(group())


@pytest.mark.parametrize("group", GROUPS)
async def test_every_upload_gets_its_answer_and_the_service_continues(client, group):
    wrong, details = {}, []
    for upload in GROUPS[group]():
        answer, detail = result_of(await client.post("/v1/classify", **request(upload)))
        details.append(detail)
        if answer != upload.answer:
            wrong[upload.name] = f"{answer} instead of {upload.answer}"
    assert wrong == {}
    missing = [start for start in DETAILS.get(group, ()) if not any(detail.startswith(start) for detail in details)]
    assert missing == []
    assert (await client.get("/readyz")).status_code == 200
    answer = await client.post("/v1/classify", json={"text": "red"})
    assert answer.json()["labels"][0]["label"] == "red"


def test_every_group_with_expected_details_exists():
    assert set(DETAILS) <= set(GROUPS)


async def test_one_poisonous_image_of_a_batch_does_not_change_the_answers_of_other_items(client):
    good = [{"text": "green"}, {"image": encoded(saved(solid(colour="red")))}, {"text": "blue blue"}]
    alone = [(await client.post("/v1/classify", json=item)).json() for item in good]
    groups = (uploads.jpegs, uploads.tiffs, uploads.strangers)
    poisons = [upload for group in groups for upload in group() if upload.answer != uploads.OK]
    assert len(poisons) > 60
    for start in range(0, len(poisons), 20):
        batch = poisons[start : start + 20]
        items = [good[0], *({"image": encoded(file_in(upload))} for upload in batch), *good[1:]]
        response = await client.post("/v1/classify/batch", json={"items": items})
        assert response.status_code == 200
        answers = response.json()["items"]
        problems = [f"{answer['status']} {answer['problem']['code']}" for answer in answers[1:-2]]
        assert problems == [upload.answer for upload in batch]
        assert [answer["classification"] for answer in (answers[0], *answers[-2:])] == alone


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def file_in(upload: Upload) -> bytes:
    """Return the file in a form of one part."""
    return upload.content.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n" + uploads.END)


# --- decoders ---

SCRIPT = """
import json, sys, warnings
from pathlib import Path
from PIL import Image

warnings.simplefilter("ignore")

def refuse(*_):
    raise AssertionError("Pillow loads more decoders")

Image.init = Image.preinit = Image.open = refuse
import polymodal.app.workers.__main__
from polymodal.model import InputError
from polymodal.model.modalities.image.input import ImageInput

image = ImageInput(side=32)
image.probes()
results = []
for file in sorted(Path(sys.argv[1]).iterdir()):
    try:
        image.decode(file.read_bytes())
        results.append("decoded")
    except InputError as refusal:
        results.append(type(refusal).__name__)
plugins = [name for name in sys.modules if name.startswith("PIL.") and name.endswith("ImagePlugin")]
print(json.dumps({"results": results, "formats": list(Image.OPEN), "plugins": plugins}))
"""


def foreign_files() -> list[bytes]:
    """Return a file in every format that Pillow writes, files with a second image inside, and hostile images."""
    Image.init()
    written = []
    for name in set(Image.SAVE) - {"PDF", "GRIB", "HDF5", "BUFR", "WMF"}:  # the last four are stubs
        for mode in ("RGB", "L", "1", "P", "RGBA"):
            with suppress(OSError, ValueError, SystemError):
                written.append(saved(solid(mode, (32, 32)), name))
                break
    pair = saved(solid(), "MPO", save_all=True, append_images=[solid(colour=255)])
    wrapped = [jpeg_with(segment(0xE1, b"Exif\x00\x00" + content[:60_000])) for content in written[:5]]
    hostile = [file_in(upload) for group in (uploads.strangers, uploads.tiffs, uploads.bmps) for upload in group()]
    return [*written, pair, *wrapped, *hostile]


@pytest.mark.filterwarnings("ignore:.* is deprecated:DeprecationWarning")  # of formats that the service does not accept
def test_no_other_decoder_of_pillow_is_ever_loaded(tmp_path):
    files = foreign_files()
    for number, content in enumerate(files):
        (tmp_path / f"{number:04}").write_bytes(content)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    report = json.loads(process.stdout)
    assert len(report["results"]) == len(files)
    assert {"decoded", "UnsupportedFormat", "Undecodable"} <= set(report["results"])
    assert set(report["formats"]) == {"AVIF", "BMP", "DIB", "GIF", "JPEG", "PNG", "TIFF", "WEBP"}
    accepted = {f"PIL.{name}ImagePlugin" for name in ("Avif", "Bmp", "Gif", "Jpeg", "Png", "Tiff", "WebP")}
    assert set(report["plugins"]) == accepted


# --- addresses ---


@pytest.fixture
def unused_port():
    """A port that nothing should connect to, and a function that returns the number of new connections."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)

        def connections() -> int:
            accepted = 0
            with suppress(BlockingIOError):
                while True:
                    listener.accept()[0].close()
                    accepted += 1
            return accepted

        yield listener.getsockname()[1], connections


async def test_no_address_is_ever_fetched(client, unused_port):
    """Addresses in every place where a reader might follow one."""
    port, connections = unused_port
    address = f"http://127.0.0.1:{port}/a.png"
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:x="http://www.w3.org/1999/xlink"><image x:href="{address}"/></svg>'
    xml = f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY % b SYSTEM "{address}"> %b;]><a/>'
    html = f'<html><img src="{address}"><link rel="stylesheet" href="{address}"></html>'
    eps = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n({address}) run\n"
    xmp = b"http://ns.adobe.com/xap/1.0/\x00" + address.encode()
    files = [text.encode() for text in (svg, xml, html, eps, address)]
    files += [jpeg_with(segment(0xE1, xmp)), png() + address.encode()]
    for content in files:
        assert (await client.post("/v1/classify", files={"image": content})).status_code in (200, 415)
        assert (await client.post("/v1/classify", json={"image": encoded(content)})).status_code in (200, 415)
    for image in (address, f"data:text/uri-list;base64,{encoded(address.encode())}"):
        assert (await client.post("/v1/classify", json={"image": image})).status_code in (415, 422)
    for text in (address, svg, xml, html):
        assert (await client.post("/v1/classify", json={"text": text})).status_code == 200
    headers = {"X-Forwarded-Host": f"127.0.0.1:{port}", "Referer": address, "Origin": address}
    assert (await client.post("/v1/classify", json={"text": "red"}, headers=headers)).status_code == 200
    assert connections() == 0


def test_a_connection_to_the_unused_port_is_counted(unused_port):
    port, connections = unused_port
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{port}/", timeout=0.2)
    assert connections() == 1


def test_the_limits_are_those_of_the_documentation():
    documentation = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    settings = Settings(workers=0)
    for row in (
        f"| parts of a form | {len(schemas_of(TASKS['classify']).body.model_fields)} |",
        f"| header fields of a part | {PART_HEADERS}, each of {PART_HEADER_BYTES:,} bytes |",
        f"| JSON within JSON | {JSON_DEPTH} lists and objects |",
        f"| pieces of JSON | {JSON_PIECES:,} strings, commas and brackets |",
        f"| items of a batch request, candidates, labels of your own | {settings.max_batch_request_items} |",
        f"| combining characters in a row | {MOST_MARKS} |",
        f"| segments of a JPEG before its picture | {metadata.MOST_SEGMENTS:,} |",
        f"| scans of a JPEG | {metadata.MOST_SCANS} |",
        f"| chunks of a PNG or WebP, blocks of a GIF before its picture, strips or tiles of a TIFF | {metadata.MOST_PIECES:,} |",
    ):
        assert row in documentation, row
