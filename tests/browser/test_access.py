"""A service with keys: the page requests one, keeps it for its tab only, and reports a wrong one."""

import json

import pytest

from polymodal.app.access.keys import digest

KEY, NARROW = "full-" + "k" * 40, "narrow-" + "k" * 40


@pytest.fixture
def address(toys, tmp_path):
    """The page of a service with two keys, one of which may only classify."""
    records = [
        {"name": "full", "sha256": digest(KEY), "scopes": ["classify", "models"], "created": "2026-01-01"},
        {"name": "narrow", "sha256": digest(NARROW), "scopes": ["classify"], "created": "2026-01-01"},
    ]
    (tmp_path / "keys.json").write_text(json.dumps({"keys": records}), encoding="utf-8")
    return toys("single-label", api_keys_file=tmp_path / "keys.json")


def enter(page, key):
    page.wait_for_selector("#access:visible")
    page.get_by_label("API key").fill(key)
    page.get_by_label("API key").press("Enter")


def test_the_page_requests_a_key_and_works_with_it(open_page, address):
    page = open_page(address)
    page.wait_for_selector("#access:visible")
    assert "This service needs an API key." in page.locator("#access").inner_text()
    enter(page, KEY)
    page.wait_for_selector("#answer .chip")
    assert not page.locator("#access").is_visible()
    assert not page.locator("#links").is_visible()  # they cannot carry a key
    page.locator("#input-text").fill("red red")
    page.wait_for_selector(".headline strong")
    assert page.locator(".headline").inner_text().startswith("red")
    assert "$POLYMODAL_KEY" in page.locator("#snippet").inner_text()
    assert KEY not in page.content()


def test_a_key_is_kept_until_the_tab_is_closed_and_no_longer(open_page, address):
    page = open_page(address)
    enter(page, KEY)
    page.wait_for_selector("#answer .chip")
    page.reload()
    page.wait_for_selector("#answer .chip")
    assert page.evaluate("Object.values(localStorage).join()").find(KEY) == -1
    other = page.context.new_page()
    other.goto(address)
    other.wait_for_selector("#access:visible")


def test_a_wrong_key_is_reported_and_can_be_replaced(open_page, address):
    page = open_page(address)
    enter(page, "no-such-key")
    page.get_by_text("The service rejects this key.").wait_for()
    enter(page, KEY)
    page.wait_for_selector("#answer .chip")


def test_a_key_can_be_forgotten(open_page, address):
    page = open_page(address)
    enter(page, KEY)
    page.wait_for_selector("#answer .chip")
    page.get_by_role("button", name="Forget the key").click()
    page.wait_for_selector("#access:visible")
    assert page.evaluate("sessionStorage.length") == 0


def test_a_key_that_may_only_classify_does(open_page, address):
    page = open_page(address)
    enter(page, NARROW)
    page.wait_for_selector("#access", state="hidden")
    page.locator("#input-text").fill("red red red")
    page.wait_for_selector(".headline strong")
    assert page.locator(".headline").inner_text().startswith("red")
    page.get_by_role("link", name="The model").click()
    assert "This API key may not do that." in page.locator("#card-lead").inner_text()


def test_a_key_without_the_scope_of_comparisons_is_reported_in_plain_words(open_page, toys, tmp_path):
    records = [{"name": "full", "sha256": digest(KEY), "scopes": ["classify", "models"], "created": "2026-01-01"}]
    (tmp_path / "keys.json").write_text(json.dumps({"keys": records}), encoding="utf-8")
    page = open_page(f"{toys('single-label', aligned=True, api_keys_file=tmp_path / 'keys.json')}#compare")
    enter(page, KEY)
    page.wait_for_selector("#by-words-list li")
    page.fill("#query-words", "red")
    page.wait_for_selector("#by-words-trouble:visible")
    assert "This API key may not do that." in page.locator("#by-words-trouble").inner_text()
