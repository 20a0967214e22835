"""Downloads: resumed, verified, set aside when wrong. Only a server on this machine is spoken to."""

import hashlib
import http.server
import io
import json
import tarfile
import threading
from pathlib import Path

import gdown
import numpy as np
import pytest
from PIL import Image

from naign_ext.data import DataUnavailableError, download_dataset, load_dataset
from naign_ext.data import download as download_function
from naign_ext.data.ffhq import ADAIMLE_FILE_ID
from naign_ext.vision import import_torchvision


def faces_tar(count):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for index in range(count):
            picture = io.BytesIO()
            Image.fromarray(np.full((8, 8, 3), index, dtype=np.uint8)).save(picture, format="PNG")
            member = tarfile.TarInfo(f"datasets/ffhq/img/{index:03d}.png")
            member.size = picture.tell()
            picture.seek(0)
            archive.addfile(member, picture)
    return buffer.getvalue()


ARCHIVE = faces_tar(100)
DIGEST = hashlib.sha256(ARCHIVE).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves one file with ranges; `cut` makes a connection end early, `ignore_range` forgets the range."""

    content = ARCHIVE
    cut = None
    ignore_range = False
    ranges: list  # of the Range headers seen, None for none

    def do_GET(self):
        asked = self.headers.get("Range")
        self.ranges.append(asked)
        start = 0 if asked is None or self.ignore_range else int(asked.removeprefix("bytes=").rstrip("-"))
        if start >= len(self.content):
            self.send_error(416)
            return
        body = self.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.cut])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    handler = type("Handler", (Handler,), {"ranges": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        handler.url = f"http://127.0.0.1:{running.server_port}/datasets.tar"
        yield handler
        running.shutdown()
        thread.join()


def test_a_download_is_verified_recorded_and_found_again(tmp_path, server):
    lines = []
    result = download_dataset("ffhq100", tmp_path, url=server.url, sha256=DIGEST, progress=lines.append)
    archive = tmp_path / "ffhq100" / "datasets.tar"
    assert archive.read_bytes() == ARCHIVE
    assert (result.sha256, result.bytes, result.images) == (DIGEST, len(ARCHIVE), 100)
    assert json.loads((tmp_path / "ffhq100" / "datasets.tar.json").read_text())["sha256"] == DIGEST
    assert sorted(path.name for path in archive.parent.iterdir()) == ["datasets.tar", "datasets.tar.json"]
    assert any("CC BY-NC-SA" in line for line in lines)
    assert any(DIGEST in line for line in lines)
    assert len(load_dataset("ffhq100", data_root=tmp_path, image_size=8).train) == 80
    again = download_function("ffhq100", tmp_path)
    assert again.sha256 == DIGEST
    assert again.source == server.url
    assert server.ranges == [None]


def test_an_interrupted_download_continues_where_it_stopped(tmp_path, server):
    server.cut = 5000
    with pytest.raises(DataUnavailableError, match="run the command again to continue"):
        download_dataset("ffhq100", tmp_path, url=server.url, sha256=DIGEST)
    part = tmp_path / "ffhq100" / "datasets.tar.download.part"
    assert part.read_bytes() == ARCHIVE[:5000]
    server.cut = None
    download_dataset("ffhq100", tmp_path, url=server.url, sha256=DIGEST)
    assert server.ranges == [None, "bytes=5000-"]
    assert (tmp_path / "ffhq100" / "datasets.tar").read_bytes() == ARCHIVE


def test_a_server_without_ranges_starts_over(tmp_path, server):
    folder = tmp_path / "ffhq100"
    folder.mkdir()
    (folder / "datasets.tar.download.part").write_bytes(b"x" * 100)
    server.ignore_range = True
    download_dataset("ffhq100", tmp_path, url=server.url, sha256=DIGEST)
    assert (folder / "datasets.tar").read_bytes() == ARCHIVE


def test_a_part_that_is_already_whole_is_verified(tmp_path, server):
    folder = tmp_path / "ffhq100"
    folder.mkdir()
    (folder / "datasets.tar.download.part").write_bytes(ARCHIVE)
    download_dataset("ffhq100", tmp_path, url=server.url, sha256=DIGEST)
    assert (folder / "datasets.tar").read_bytes() == ARCHIVE


def test_a_wrong_hash_is_set_aside(tmp_path, server):
    with pytest.raises(DataUnavailableError, match=f"its SHA-256 is {DIGEST}, expected {'0' * 64}"):
        download_dataset("ffhq100", tmp_path, url=server.url, sha256="0" * 64)
    assert [path.name for path in (tmp_path / "ffhq100").iterdir()] == ["datasets.tar.download.rejected"]
    download_dataset("ffhq100", tmp_path, url=server.url, sha256=DIGEST)


@pytest.mark.parametrize("content", [faces_tar(99), b"<html>quota exceeded</html>"])
def test_an_archive_without_a_hundred_images_is_set_aside(tmp_path, server, content):
    server.content = content
    digest = hashlib.sha256(content).hexdigest()
    with pytest.raises(DataUnavailableError, match="what was downloaded is not usable"):
        download_dataset("ffhq100", tmp_path, url=server.url, sha256=digest)
    assert not (tmp_path / "ffhq100" / "datasets.tar").exists()


def test_google_drive_is_asked_for_the_shared_file_with_resuming(tmp_path, monkeypatch):
    calls = []

    def fake(**options):
        calls.append(options)
        Path(options["output"]).write_bytes(ARCHIVE)
        return options["output"]

    monkeypatch.setattr(gdown, "download", fake)
    result = download_dataset("ffhq100", tmp_path)
    assert calls[0]["id"] == ADAIMLE_FILE_ID
    assert calls[0]["resume"] is True
    assert ADAIMLE_FILE_ID in result.source
    download_dataset("ffhq100", tmp_path / "other", file_id="abc")
    assert calls[1]["id"] == "abc"


def test_a_failing_drive_names_the_other_ways(tmp_path, monkeypatch):
    def fail(**options):
        raise gdown.exceptions.FileURLRetrievalError("too many accesses")

    monkeypatch.setattr(gdown, "download", fail)
    with pytest.raises(DataUnavailableError) as caught:
        download_dataset("ffhq100", tmp_path)
    for fragment in ("too many accesses", "--url", "--file-id", "--data-root", "--dataset lfw100"):
        assert fragment in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "fragment"),
    [
        ("moons", {}, "needs no download"),
        ("celeba", {}, "expected ffhq100 or mnist, got 'celeba'"),
        ("ffhq100", {"url": "http://example.invalid/x"}, "url: expected https"),
        ("ffhq100", {"url": "file:///etc/passwd", "sha256": DIGEST}, "url: expected https"),
        ("ffhq100", {"url": "https://example.invalid/x", "file_id": "a"}, "expected one of them, got both"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, name, options, fragment):
    with pytest.raises(ValueError, match=fragment):
        download_dataset(name, tmp_path, **options)


def test_torchvision_imports_beside_a_torch_it_was_not_built_for():
    datasets = import_torchvision("datasets")
    assert datasets.MNIST.__name__ == "MNIST"
    assert import_torchvision().__name__ == "torchvision"
    assert import_torchvision("datasets") is datasets
