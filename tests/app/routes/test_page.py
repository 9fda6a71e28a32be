import re

import pytest


async def test_the_page_is_served_with_a_policy_that_allows_nothing_from_elsewhere(client):
    answer = await client.get("/")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy


async def test_everything_the_page_needs_is_here(client):
    page = (await client.get("/")).text
    for address in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert (await client.get(f"/{address}")).status_code == 200, address


@pytest.mark.parametrize("file", ["page.js", "page.css", "icon.svg"])
async def test_no_file_of_the_page_names_an_outside_address(client, file):
    content = (await client.get(f"/web/{file}")).text.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|//[a-z]", content)
