"""The view that ranks images for words, and words for an image."""

import base64
import io
import json
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from tests.browser.conftest import EXAMPLES
from tests.media import solid

CAPTIONS = [
    "a sailing dinghy has capsized",
    "a tiger on the prowl",
    "a pocket camera",
    "a karate kick",
    "a slice of lime",
]


@pytest.fixture
def page(open_page, address):
    return open_page(f"{address}#compare", ready="#by-words-list li:nth-child(5)")


@pytest.fixture
def toy_page(open_page, toys):
    """`toy_page(**settings)`: the view of a service with a tiny aligned model, for which an image is a colour."""

    def start(**settings):
        address = toys("single-label", aligned=True, **settings)
        return open_page(f"{address}#compare", ready="#by-words-list li:nth-child(5)")

    return start


def compared(page):
    """Return a list to which the bodies of all further comparisons are appended."""
    bodies = []
    page.on("request", lambda request: request.url.endswith("v1/similarity") and bodies.append(request.post_data_json))
    return bodies


def names(page, side):
    listed = page.locator(f"#by-{side}-list .name").all_text_contents()
    return [name.removeprefix("✓ ").removesuffix(", fits") for name in listed]


def row(page, name):
    return page.locator("#by-words-list li", has_text=name)


def amounts(page, side):
    page.wait_for_selector(f"#by-{side}-list:not([aria-busy]) .amount")
    return [float(amount.strip("<> %")) for amount in page.locator(f"#by-{side}-list .amount").all_inner_texts()]


def status(page, side):
    return page.locator(f"#by-{side}-status")


def type_words(page, words):
    page.fill("#query-words", words)
    page.wait_for_selector("#by-words-list .amount")


def colour(folder, name):
    path = folder / f"{name}.png"
    path.write_bytes(solid(name))
    return path


# --- a first visit ---


def test_the_view_explains_itself_and_sends_nothing(page):
    sent = compared(page)
    page.wait_for_timeout(400)
    assert page.title() == "Compare · Polymodal"
    assert page.locator("nav [aria-current]").inner_text() == "Compare"
    assert names(page, "words") == names(page, "picture") == CAPTIONS
    assert "at equal odds" in page.locator("#about-match").inner_text()
    assert not page.locator("#compare .amount").count()
    assert not sent


def test_the_view_is_offered_for_models_that_can_compare_alone(open_page, toys):
    page = open_page(f"{toys('single-label')}#compare", ready="#answer .chip")
    page.wait_for_selector("#try-title:visible")
    assert page.locator("#try-title").is_visible()
    assert not page.locator("#compare-link").is_visible()
    assert page.title() == "Try it · Polymodal"


def test_a_model_without_labels_refers_to_the_view(open_page, toys, change_models):
    address = toys("single-label", aligned=True)
    page = open_page(address)
    change_models(page, f"{address}?again", lambda model: model.update(target=None, labels=[], tasks=["embed"]))
    page.wait_for_selector("#compare-link:visible")
    for place in ("#try-lead", "#verdict"):
        assert "no labels: see Compare" in page.locator(place).inner_text()


# --- pictures for words ---


@pytest.mark.parametrize(
    ("words", "best"),
    [
        pytest.param("a wild animal", "a tiger on the prowl", id="animal"),
        pytest.param("something to eat", "a slice of lime", id="food"),
        pytest.param("a device for taking pictures", "a pocket camera", id="device"),
    ],
)
def test_each_suggestion_has_its_image_first(page, words, best):
    page.get_by_role("button", name=words).click()
    shares = amounts(page, "words")
    assert page.input_value("#query-words") == words
    assert names(page, "words")[0] == best
    assert shares == sorted(shares, reverse=True)
    assert len(shares) == 5
    assert status(page, "words").inner_text() == f"Best: {best}, {shares[0]} %."


def test_words_are_compared_while_one_types_and_with_pixels_alone(page):
    sent = compared(page)
    page.locator("#query-words").press_sequentially("a tiger", delay=20)
    amounts(page, "words")
    assert names(page, "words")[0] == "a tiger on the prowl"
    assert len(sent) == 1
    assert sent[0]["query"] == {"text": "a tiger"}
    assert [list(candidate) for candidate in sent[0]["candidates"]] == [["image"]] * 5


def test_a_pair_that_fits_is_marked_by_more_than_colour(toy_page, tmp_path):
    page = toy_page()
    page.set_input_files("#gallery-files", [colour(tmp_path, name) for name in ("red", "blue")])
    type_words(page, "red")
    red, blue = row(page, "red.png"), row(page, "blue.png")
    assert red.locator(".name").inner_text().startswith("✓ red.png")
    assert "fits" in red.locator(".name").text_content()
    assert red.locator(".amount").inner_text() == "99.3 %"  # 1 / (1 + e^-5): the cosine is 1
    assert red.locator(".mark").count() == 1
    assert blue.locator(".name").inner_text() == "blue.png"
    assert blue.locator(".amount").inner_text() == "0.7 %"


def test_where_nothing_fits_the_closest_is_named(toy_page):
    page = toy_page()
    answer = {
        "pairs": [{"index": i, "cosine": 0.1, "match": 0.2, "threshold": 0.5, "selected": False} for i in range(5)]
    }
    page.route("**/v1/similarity", lambda route: route.fulfill(json={**answer, "failed": []}))
    type_words(page, "red")
    assert status(page, "words").inner_text() == f"Nothing fits well. Closest: {CAPTIONS[0]}, 20.0 %."


def test_a_model_without_calibrated_matches_ranks_by_cosine(toy_page):
    page = toy_page()
    answer = {"pairs": [{"index": index, "cosine": index / 10} for index in range(5)], "failed": []}
    page.route("**/v1/similarity", lambda route: route.fulfill(json=answer))
    type_words(page, "red")
    assert amounts(page, "words") == [0.4, 0.3, 0.2, 0.1, 0]
    assert not page.locator("#by-words-list .bar").count()
    assert "a cosine is no probability" in status(page, "words").inner_text()


def test_emptied_words_leave_the_images_without_a_rank(page):
    type_words(page, "a tiger")
    page.fill("#query-words", "\u200b ")
    page.wait_for_selector("#by-words-list .amount", state="detached")
    assert names(page, "words") == CAPTIONS
    assert status(page, "words").inner_text() == ""


def test_each_pair_is_sent_once(page, tmp_path):
    sent = compared(page)
    for words in ("a tiger", "a boat", "a tiger"):
        type_words(page, words)
        page.wait_for_timeout(500)
    assert [body["query"]["text"] for body in sent] == ["a tiger", "a boat"]
    page.set_input_files("#gallery-files", EXAMPLES / "tiger.png")
    row(page, "tiger.png").wait_for()
    page.wait_for_timeout(500)
    assert [len(body["candidates"]) for body in sent] == [5, 5, 1]
    page.get_by_role("button", name="Remove tiger.png").click()
    page.wait_for_timeout(300)
    assert names(page, "words")[0] == "a tiger on the prowl"
    assert page.evaluate("document.activeElement.id") == "gallery-files"
    assert len(sent) == 3


def test_an_older_ranking_never_overwrites_a_newer_one(page):
    held, aborted = [], []
    page.on("requestfailed", lambda request: aborted.append(request.url))

    def hold(route):
        if route.request.post_data_json["query"]["text"] == "food":
            held.append(route)
        else:
            route.continue_()

    page.route("**/v1/similarity", hold)
    with page.expect_request("**/v1/similarity"):
        page.fill("#query-words", "food")
    type_words(page, "a tiger")
    late = {"pairs": [{"index": 2, "cosine": 1, "match": 1, "threshold": 0.5, "selected": True}], "failed": []}
    with suppress(Exception):  # its request was aborted
        held[0].fulfill(json=late)
    page.wait_for_timeout(300)
    assert names(page, "words")[0] == "a tiger on the prowl"
    assert len(aborted) == 1


def test_more_candidates_than_a_request_takes_are_split_and_the_rest_is_named(toy_page, tmp_path):
    page = toy_page()
    sent = compared(page)
    files = [tmp_path / f"{number}.png" for number in range(100)]
    for file in files:
        file.write_bytes(solid("red", size=(16, 16)))
    page.set_input_files("#gallery-files", files)
    type_words(page, "red")
    assert [len(body["candidates"]) for body in sent] == [32, 32, 32]
    assert "Only the first 96 of 105 are compared." in status(page, "words").inner_text()
    assert page.locator("#by-words-list li").count() == 96


# --- words for a picture ---


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4])
def test_an_example_has_its_own_caption_first(page, number):
    page.locator("#query-examples .example").nth(number).click()
    shares = amounts(page, "picture")
    assert names(page, "picture")[0] == CAPTIONS[number]
    assert shares == sorted(shares, reverse=True)
    assert f"Best: {CAPTIONS[number]}" in status(page, "picture").inner_text()


def test_typed_lines_are_compared_each_once(page):
    page.locator("#query-examples .example").nth(1).click()
    amounts(page, "picture")
    sent = compared(page)
    page.fill("#more-words", "a big cat\n\n  a big cat \n\u200b\nthe flag of France\na pocket camera")
    page.get_by_text("the flag of France").last.wait_for()
    page.wait_for_timeout(600)
    assert sorted(names(page, "picture")) == sorted([*CAPTIONS, "a big cat", "the flag of France"])
    assert names(page, "picture")[:2] == ["a tiger on the prowl", "a big cat"]
    assert [body["candidates"] for body in sent] == [[{"text": "a big cat"}, {"text": "the flag of France"}]]


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_an_image_that_is_dropped_or_pasted_gets_words(page, bring, event):
    bring(page, event, EXAMPLES / "tiger.png")
    amounts(page, "picture")
    assert page.evaluate("location.hash") == "#compare"
    assert names(page, "picture")[0] == "a tiger on the prowl"
    assert "tiger.png" in page.locator("#query-picture .under").inner_text()
    page.get_by_role("button", name="Remove").click()
    page.wait_for_selector("#by-picture-list .amount", state="detached")


def test_several_images_that_are_dropped_are_ranked(page, bring):
    bring(page, "drop", EXAMPLES / "tiger.png", EXAMPLES / "camera.png")
    row(page, "camera.png").wait_for()
    assert names(page, "words") == ["tiger.png", "camera.png", *CAPTIONS]
    assert page.evaluate("location.hash") == "#compare"


def test_a_table_that_is_dropped_goes_to_the_view_of_many(page, bring, tmp_path):
    (tmp_path / "items.csv").write_text("text\na tiger\n", encoding="utf-8")
    bring(page, "drop", tmp_path / "items.csv")
    page.get_by_text("1 row").first.wait_for()
    assert page.evaluate("location.hash") == "#batch"


def test_words_are_never_read_as_html(page):
    page.locator("#query-examples .example").nth(1).click()
    page.fill("#more-words", "<img src=x onerror=alert(1)>")
    page.get_by_text("<img src=x").last.wait_for()
    assert not page.locator("#by-picture-list img").count()


# --- when it does not work ---


def test_a_broken_image_fails_alone(page, tmp_path):
    (tmp_path / "note.png").write_bytes(b"not a picture")
    (tmp_path / "empty.png").write_bytes(b"")
    page.set_input_files("#gallery-files", [tmp_path / "note.png", tmp_path / "empty.png"])
    type_words(page, "a tiger")
    assert len(amounts(page, "words")) == 5
    assert names(page, "words")[0] == "a tiger on the prowl"
    assert sorted(names(page, "words")[-2:]) == ["empty.png", "note.png"]
    assert "bytes of no known picture format" in row(page, "note.png").inner_text()
    assert row(page, "empty.png").locator(".failed").is_visible()


def test_a_broken_query_is_reported_in_plain_words(page, tmp_path):
    (tmp_path / "note.png").write_bytes(b"not a picture")
    page.set_input_files("#query-file", tmp_path / "note.png")
    page.wait_for_selector("#by-picture-trouble:visible")
    problem = page.locator("#by-picture-trouble").inner_text()
    assert "This is no picture that the model can read." in problem
    assert "unsupported_format" in problem
    assert names(page, "picture") == CAPTIONS
    page.set_input_files("#query-file", EXAMPLES / "tiger.png")
    amounts(page, "picture")
    assert not page.locator("#by-picture-trouble").is_visible()


def test_an_image_beyond_the_limit_is_not_sent(toy_page, tmp_path):
    (tmp_path / "large.png").write_bytes((EXAMPLES / "camera.png").read_bytes() + bytes(50_000))
    page = toy_page(max_image_bytes=50_000)
    sent = compared(page)
    page.set_input_files("#gallery-files", tmp_path / "large.png")
    type_words(page, "red")
    assert "this service reads at most 50,000" in row(page, "large.png").inner_text()
    assert sum(len(body["candidates"]) for body in sent) == 5
    page.set_input_files("#query-file", tmp_path / "large.png")
    page.wait_for_selector("#by-picture-trouble:visible")
    assert "too large to send" in page.locator("#by-picture-trouble").inner_text()


@pytest.mark.parametrize(
    ("problem", "headers", "words"),
    [
        pytest.param({"code": "overloaded", "status": 429}, {"Retry-After": "3"}, "in 3 s", id="busy"),
        pytest.param({"code": "forbidden", "status": 403}, {}, "This API key may not do that.", id="no-scope"),
        pytest.param({"code": "too_many_items", "status": 422}, {}, "more than the service compares", id="too-many"),
    ],
)
def test_a_problem_is_reported_in_plain_words_and_goes_with_the_next_answer(page, problem, headers, words):
    def fail(route):
        kind = "application/problem+json"
        route.fulfill(status=problem["status"], headers=headers, content_type=kind, body=json.dumps(problem))

    page.route("**/v1/similarity", fail)
    page.fill("#query-words", "a tiger")
    page.wait_for_selector("#by-words-trouble:visible")
    assert words in page.locator("#by-words-trouble").inner_text()
    assert names(page, "words") == CAPTIONS
    page.unroute("**/v1/similarity")
    page.locator("#query-words").press("Enter")
    amounts(page, "words")
    assert not page.locator("#by-words-trouble").is_visible()


def test_examples_that_cannot_be_fetched_are_reported(open_page, address):
    page = open_page(address, ready="#answer .chip")
    page.route("**/web/examples/*.png", lambda route: route.abort())
    page.get_by_role("link", name="Compare").click()
    page.wait_for_selector("#by-words-trouble:visible")
    assert "The service does not answer." in page.locator("#by-words-trouble").inner_text()


# --- models, keyboard ---


def test_another_model_ranks_again(open_page, toys):
    address = toys("single-label", "multi-label", aligned=True)
    page = open_page(f"{address}#compare", ready="#by-words-list li:nth-child(5)")
    type_words(page, "red")
    sent = compared(page)
    with page.expect_response("**/v1/similarity"):
        page.select_option("#model", "multi-label")
    assert [body["model"] for body in sent] == ["multi-label"]


def test_words_are_ranked_and_an_image_is_chosen_by_keyboard(page):
    page.locator("#query-words").focus()
    page.keyboard.type("something to eat")
    page.keyboard.press("Enter")
    assert amounts(page, "words")
    for _ in range(12):
        page.keyboard.press("Tab")
        if "lime" in (page.evaluate("document.activeElement.getAttribute('aria-label')") or ""):
            break
    page.keyboard.press("Enter")
    assert amounts(page, "picture")
    assert names(page, "picture")[0] == "a slice of lime"


def test_rankings_are_announced(page):
    for side in ("words", "picture"):
        assert status(page, side).get_attribute("role") == "status"
        assert page.locator(f"#by-{side}-trouble").get_attribute("role") == "alert"
        assert page.locator(f"#by-{side}-list").get_attribute("aria-labelledby") == f"by-{side}-title"


def test_a_large_image_is_reduced_before_it_is_sent(toy_page, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (800, 1600, 3), dtype=np.uint8)
    noise[..., 1:] = 0
    Image.fromarray(noise).save(tmp_path / "photo.png")
    page = toy_page(max_image_bytes=1_000_000)
    sent = compared(page)
    assert (tmp_path / "photo.png").stat().st_size > 1_000_000
    page.set_input_files("#gallery-files", tmp_path / "photo.png")
    type_words(page, "red")
    uploaded = next(
        candidate["image"] for candidate in sent[0]["candidates"] if candidate["image"][:15] == "data:image/webp"
    )
    with Image.open(io.BytesIO(base64.b64decode(uploaded.partition(",")[2]))) as image:
        assert image.size == (1024, 512)
    assert row(page, "photo.png").locator(".name").text_content() == "✓ photo.png, fits"
