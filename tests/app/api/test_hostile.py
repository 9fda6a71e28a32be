"""Every hostile upload gets the answer that it must get, and the service goes on: `test_workers` asks a real worker the same."""

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
from tests.hostile.images import jpeg_with, png, saved, segment, solid
from tests.hostile.uploads import IMAGES, TEXTS_AND_BODIES, Upload

ROOT = Path(__file__).parents[3]
GROUPS = {group.__name__: group for group in (*IMAGES, *TEXTS_AND_BODIES)}


def request(upload: Upload) -> dict:
    headers = {} if upload.content_type is None else {"Content-Type": upload.content_type}
    return {"content": upload.content, "headers": headers}


def answered(answer: httpx.Response) -> str:
    """Its status and its problem's code; also checks that the body is what OpenAPI promises."""
    body = answer.json()
    assert body.get("instance", answer.headers["X-Request-Id"]) == answer.headers["X-Request-Id"]
    if answer.status_code == 200:
        assert answer.headers["Content-Type"] == "application/json"
        assert {"model", "digest", "modalities", "labels"} <= set(body)
        return "200 ok"
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = Problem.model_validate(body, strict=True)
    assert problem.status == answer.status_code
    assert set(body) <= set(Problem.model_fields)
    assert len(answer.content) < 2000, "a problem shows little of what was sent"
    return f"{problem.status} {problem.code}"


def test_there_are_hundreds_of_them_and_each_has_a_name_of_its_own():
    every = uploads.uploads()
    assert len(every) >= 300
    assert [name for name, times in Counter(each.name for each in every).items() if times > 1] == []


def test_they_are_the_same_each_time():
    for group in (uploads.cut_off, uploads.pngs, uploads.texts, uploads.forms):
        assert list(group()) == list(group())


@pytest.mark.parametrize("group", GROUPS)
async def test_each_gets_its_answer_and_the_service_goes_on(client, group):
    wrong = {}
    for upload in GROUPS[group]():
        found = answered(await client.post("/v1/classify", **request(upload)))
        if found != upload.answer:
            wrong[upload.name] = f"{found} instead of {upload.answer}"
    assert wrong == {}
    assert (await client.get("/readyz")).status_code == 200
    answer = await client.post("/v1/classify", json={"text": "red"})
    assert answer.json()["labels"][0]["label"] == "red"


async def test_one_poisonous_item_of_a_batch_leaves_the_others_their_answers(client):
    """Each picture that is refused alone, in a batch between good items."""
    good = [{"text": "green"}, {"image": encoded(saved(solid(colour="red")))}, {"text": "blue blue"}]
    alone = [(await client.post("/v1/classify", json=item)).json() for item in good]
    refused = [each for group in (uploads.jpegs, uploads.tiffs, uploads.strangers) for each in group()]
    poisons = [each for each in refused if each.name.startswith("image") and each.answer != uploads.OK]
    assert len(poisons) > 60
    for at in range(0, len(poisons), 20):
        batch = poisons[at : at + 20]
        items = [good[0], *({"image": encoded(file_in(each))} for each in batch), *good[1:]]
        answer = await client.post("/v1/classify/batch", json={"items": items})
        assert answer.status_code == 200
        answers = answer.json()["items"]
        found = [f"{each['status']} {each['problem']['code']}" for each in answers[1:-2]]
        assert found == [each.answer for each in batch]
        assert [each["classification"] for each in (answers[0], *answers[-2:])] == alone


@pytest.mark.parametrize(
    "poison",
    [
        pytest.param({"text": "red red red red red"}, id="what-the-model-chokes-on"),
        pytest.param({"text": 7}, id="a-wrong-type"),
        pytest.param({"colour": "red"}, id="another-field"),
        pytest.param({"image": "not base64!"}, id="bad-base64"),
        pytest.param({"text": "a\0b"}, id="nul"),
        pytest.param({}, id="nothing"),
        pytest.param([], id="a-list"),
        pytest.param(None, id="null"),
    ],
)
async def test_good_items_score_beside_a_poisonous_one_as_they_do_alone(client, poison):
    good = [{"text": "red"}, {"text": "green blue"}]
    alone = [(await client.post("/v1/classify", json=item)).json() for item in good]
    answer = await client.post("/v1/classify/batch", json={"items": [good[0], poison, good[1]]})
    first, bad, last = answer.json()["items"]
    assert [first["classification"], last["classification"]] == alone
    assert bad["status"] != 200
    Problem.model_validate(bad["problem"])


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def file_in(upload: Upload) -> bytes:
    """The file in a form of one part."""
    return upload.content.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n" + uploads.END)


# --- decoders ---

WATCHED = """
import json, sys, warnings
from pathlib import Path
from PIL import Image

warnings.simplefilter("ignore")

def refuse(*_):
    raise AssertionError("Pillow looks for more decoders")

Image.init = Image.preinit = Image.open = refuse
import polymodal.app.workers.__main__
from polymodal.model import InputError
from polymodal.model.modalities.image.input import ImageInput

image = ImageInput(side=32)
image.probes()
answers = []
for file in sorted(Path(sys.argv[1]).iterdir()):
    try:
        image.decode(file.read_bytes())
        answers.append("decoded")
    except InputError as refusal:
        answers.append(type(refusal).__name__)
plugins = [name for name in sys.modules if name.startswith("PIL.") and name.endswith("ImagePlugin")]
print(json.dumps({"answers": answers, "formats": list(Image.OPEN), "plugins": plugins}))
"""


def foreign_files() -> list[bytes]:
    """One file in every format that Pillow can write, and every hostile picture; second pictures within a JPEG too."""
    Image.init()
    written = []
    for name in set(Image.SAVE) - {"PDF", "GRIB", "HDF5", "BUFR", "WMF"}:  # the last four are stubs
        for mode in ("RGB", "L", "1", "P", "RGBA"):
            try:
                written.append(saved(solid(mode, (32, 32)), name))
            except (OSError, ValueError, SystemError):
                continue
            break
    pair = saved(solid(), "MPO", save_all=True, append_images=[solid(colour=255)])
    wrapped = [jpeg_with(segment(0xE1, b"Exif\x00\x00" + each[:60_000])) for each in written[:5]]
    hostile = [file_in(each) for group in (uploads.strangers, uploads.tiffs, uploads.bmps) for each in group()]
    return [*written, pair, *wrapped, *hostile]


@pytest.mark.filterwarnings("ignore:.* is deprecated:DeprecationWarning")  # of formats that are foreign here
def test_no_other_decoder_of_pillow_is_ever_loaded(tmp_path):
    files = foreign_files()
    for number, content in enumerate(files):
        (tmp_path / f"{number:04}").write_bytes(content)
    command = [sys.executable, "-c", WATCHED, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert len(told["answers"]) == len(files)
    assert {"decoded", "UnsupportedFormat", "Undecodable"} <= set(told["answers"])
    assert set(told["formats"]) == {"AVIF", "BMP", "DIB", "GIF", "JPEG", "PNG", "TIFF", "WEBP"}
    accepted = {f"PIL.{name}ImagePlugin" for name in ("Avif", "Bmp", "Gif", "Jpeg", "Png", "Tiff", "WebP")}
    assert set(told["plugins"]) == accepted


# --- addresses ---


@pytest.fixture
def lonely_port():
    """A port that nobody should connect to, and how many have."""
    with socket.create_server(("127.0.0.1", 0)) as ear:
        ear.setblocking(False)

        def connections() -> int:
            taken = 0
            with suppress(BlockingIOError):
                while True:
                    ear.accept()[0].close()
                    taken += 1
            return taken

        yield ear.getsockname()[1], connections


async def test_no_address_is_ever_fetched(client, lonely_port):
    """Addresses in every place where a reader might follow one."""
    port, connections = lonely_port
    address = f"http://127.0.0.1:{port}/a.png"
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:x="http://www.w3.org/1999/xlink"><image x:href="{address}"/></svg>'
    xml = f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY % b SYSTEM "{address}"> %b;]><a/>'
    html = f'<html><img src="{address}"><link rel="stylesheet" href="{address}"></html>'
    eps = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n({address}) run\n"
    xmp = b"http://ns.adobe.com/xap/1.0/\x00" + address.encode()
    files = [svg.encode(), xml.encode(), html.encode(), eps.encode(), address.encode()]
    files += [jpeg_with(segment(0xE1, xmp)), png() + address.encode()]
    for content in files:
        assert (await client.post("/v1/classify", files={"image": content})).status_code in (200, 415)
        assert (await client.post("/v1/classify", json={"image": encoded(content)})).status_code in (200, 415)
    for given in (address, f"data:text/uri-list;base64,{encoded(address.encode())}"):
        assert (await client.post("/v1/classify", json={"image": given})).status_code in (400, 415)
    for given in (address, svg, xml, html):
        assert (await client.post("/v1/classify", json={"text": given})).status_code == 200
    headers = {"X-Forwarded-Host": f"127.0.0.1:{port}", "Referer": address, "Origin": address}
    assert (await client.post("/v1/classify", json={"text": "red"}, headers=headers)).status_code == 200
    assert connections() == 0


def test_the_ear_for_connections_hears(lonely_port):
    port, connections = lonely_port
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
        f"| items of a batch request | {settings.max_batch_request_items} |",
        f"| combining characters in a row | {MOST_MARKS} |",
        f"| segments of a JPEG before its picture | {metadata.MOST_SEGMENTS:,} |",
        f"| scans of a JPEG | {metadata.MOST_SCANS} |",
        f"| chunks of a PNG or WebP, blocks of a GIF before its picture, strips or tiles of a TIFF | {metadata.MOST_PIECES:,} |",
    ):
        assert row in documentation, row
