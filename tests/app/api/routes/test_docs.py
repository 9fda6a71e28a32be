import base64
import hashlib
import re

import pytest

from polymodal.app.api.files import shipped

NAMED = re.compile(r'(?:src|href)="([^"]+)"')


async def test_the_viewer_loads_only_files_that_the_service_ships(client):
    page = await client.get("/docs")
    files = NAMED.findall(page.text)
    assert len(files) == 3
    assert not re.search(r"https?:|[\"'(]//", page.text)
    for file in files:
        answer = await client.get(f"/{file}")
        again = await client.get(f"/{file}", headers={"If-None-Match": answer.headers["ETag"]})
        assert (answer.status_code, again.status_code) == (200, 304), file
        assert answer.headers["Cache-Control"] == again.headers["Cache-Control"] == "no-cache"


async def test_the_viewer_sends_the_document_to_no_validator(client):
    assert '"validatorUrl": null' in (await client.get("/docs")).text


async def test_the_viewers_policy_allows_its_own_script_and_files_and_nothing_else(client):
    page = await client.get("/docs")
    (script,) = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert dict(entry.split(" ", 1) for entry in page.headers["Content-Security-Policy"].split("; ")) == {
        **dict.fromkeys(("default-src", "base-uri", "form-action", "frame-ancestors"), "'none'"),
        **dict.fromkeys(("style-src", "connect-src"), "'self'"),
        "script-src": f"'self' 'sha256-{digest}'",
        "img-src": "'self' data:",
    }


@pytest.mark.parametrize("file", ["LICENSE", "NOTICE", "swagger-ui-bundle.js.LICENSE.txt"])
def test_the_viewers_licences_ship_with_it(file):
    assert (shipped("vendor/swagger-ui") / file).is_file()


async def test_without_the_documentation_the_viewers_files_are_not_served(serving):
    async with serving(docs=False) as client:
        answer = await client.get("/docs/files/swagger-ui.css")
    assert answer.status_code == 404
