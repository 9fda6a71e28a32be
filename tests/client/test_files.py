import io
from pathlib import Path

import pytest
from PIL import Image

from polymodal_client import files


@pytest.fixture
def file(tmp_path):
    (tmp_path / "image.png").write_bytes(b"bytes of a file")
    return tmp_path / "image.png"


@pytest.mark.parametrize(
    "convert",
    [
        pytest.param(lambda path: path, id="path"),
        pytest.param(str, id="text"),
        pytest.param(Path.read_bytes, id="bytes"),
        pytest.param(lambda path: bytearray(path.read_bytes()), id="bytearray"),
        pytest.param(lambda path: memoryview(path.read_bytes()), id="memoryview"),
        pytest.param(lambda path: io.BytesIO(path.read_bytes()), id="file-in-memory"),
    ],
)
def test_an_image_may_be_a_path_bytes_or_a_file(file, convert):
    assert files.bytes_of(convert(file)) == b"bytes of a file"


class Upload(io.BytesIO):
    """An upload of Flask or Django: a file with a `save` and a `mode`, but not a PIL image."""

    mode = "rb"

    def save(self, *_):
        raise AssertionError("saved")


class Dribble(io.BytesIO):
    """A pipe without a buffer: `read` returns fewer bytes than requested."""

    def read(self, size=-1):
        return super().read(min(size, 4))


@pytest.mark.parametrize("kind", [Upload, Dribble])
def test_an_object_that_reads_bytes_is_a_file(kind):
    assert files.bytes_of(kind(b"bytes of a file")) == b"bytes of a file"


def test_an_open_file_is_read_from_its_position(file):
    with file.open("rb") as opened:
        opened.read(6)
        assert files.bytes_of(opened) == b"of a file"


def test_a_stream_that_cannot_be_rewound_is_read_once():
    class Stream(io.RawIOBase):
        chunks = (b"once",)

        def readable(self):
            return True

        def readinto(self, buffer):
            chunk = b"".join(self.chunks)
            buffer[: len(chunk)] = chunk
            self.chunks = ()
            return len(chunk)

    assert files.bytes_of(io.BufferedReader(Stream())) == b"once"


def test_a_pil_image_is_sent_as_png():
    image = Image.new("RGB", (3, 2), "red")
    with Image.open(io.BytesIO(files.bytes_of(image))) as sent:
        assert (sent.format, sent.size, sent.getpixel((0, 0))) == ("PNG", (3, 2), (255, 0, 0))


class AsyncFile:
    async def read(self, size):
        raise AssertionError("awaited")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        pytest.param(lambda folder: folder / "nowhere.png", FileNotFoundError, "nowhere.png", id="no-such-file"),
        pytest.param(lambda folder: folder, IsADirectoryError, "directory", id="folder"),
        pytest.param(lambda _: io.StringIO("text"), TypeError, "mode 'rb'", id="opened-as-text"),
        pytest.param(lambda _: io.StringIO(), TypeError, r"mode 'rb'", id="opened-as-text-and-empty"),
        pytest.param(lambda _: AsyncFile(), TypeError, "for asyncio .*coroutine", id="opened-for-asyncio"),
        pytest.param(lambda _: [1, 2], TypeError, "list; allowed: a path, bytes", id="list"),
        pytest.param(lambda _: 17, TypeError, "int; allowed: a path, bytes", id="number"),
        pytest.param(lambda _: Path("/dev/zero"), ValueError, "image: more than 1,000 bytes", id="without-an-end"),
    ],
)
def test_an_invalid_image_is_explained(tmp_path, monkeypatch, make, error, message):
    monkeypatch.setattr(files, "MAX_BYTES", 1000)
    with pytest.raises(error, match=message):
        files.bytes_of(make(tmp_path))
