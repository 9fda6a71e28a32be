"""One item: all ways to enter it, its answer, and the newest answer wins."""

import json
import shutil
import subprocess
import sys

import pytest

from polymodal.model.blank import is_blank
from tests.browser.conftest import EXAMPLES


def headline(page):
    return page.locator("#verdict .headline")


def choose(page, file):
    page.set_input_files("#input-image", file)


def classified(page):
    """Return a list to which the addresses of all further classifications are appended."""
    urls = []
    page.on("request", lambda request: request.url.endswith("v1/classify") and urls.append(request.url))
    return urls


def columns(page):
    return page.locator("#scores thead th").all_inner_texts()


# --- a first visit ---


def test_the_first_screen_explains_itself(page):
    assert page.title() == "Try it · Polymodal"
    assert page.locator("h1:visible").inner_text() == "A picture, a caption, or both"
    assert "10 labels" in page.locator("#try-lead").inner_text()
    assert page.locator("#scores .chip").count() == 10
    assert page.locator("#example-list .example").count() == 5
    assert not page.locator("#access").is_visible()


def test_nothing_is_sent_without_an_input_that_shows_something(page):
    page.wait_for_timeout(500)
    page.fill("#input-text", "\u200b\u3164")
    page.wait_for_timeout(500)
    loaded = page.evaluate("performance.getEntriesByType('resource').map(({ name }) => name)")
    assert loaded
    assert not [name for name in loaded if "classify" in name]


def test_the_page_and_the_service_agree_on_blank_characters(page):
    blank = page.evaluate("""async () => {
        const { isBlank } = await import("/web/blank.js");
        const blank = [];
        for (let code = 0; code < 0x110000; code += 1) {
            if ((code < 0xd800 || code > 0xdfff) && isBlank(String.fromCodePoint(code))) blank.push(code);
        }
        return blank;
    }""")
    assert blank == [code for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF and is_blank(chr(code))]


def test_an_example_is_answered_without_scrolling(page):
    page.get_by_role("button", name="Example: a tiger on the prowl").click()
    page.wait_for_selector("#scores .only-text.bar")
    assert headline(page).inner_text().startswith("animals")
    assert page.input_value("#input-text") == "a tiger on the prowl"
    assert columns(page) == ["Label", "Together", "Picture only", "Words only"]
    for selector in ("#verdict", "#scores", "#timings"):
        box = page.locator(selector).bounding_box()
        assert box["y"] + box["height"] <= 800
    assert page.evaluate("scrollY") == 0


def test_a_sentence_names_the_input_that_decides(page):
    page.get_by_role("button", name="Example: a pocket camera").click()
    page.wait_for_selector("#scores .only-text.bar")
    assert "The words decide: the picture alone would give flags" in page.locator("#verdict").inner_text()


def test_an_unsure_answer_is_shown_as_not_sure(page, illustrations):
    page.get_by_role("button", name="Example: a karate kick").click()
    page.wait_for_selector("#scores .only-text.bar")
    assert headline(page).inner_text() == "Not sure"
    line = illustrations.description.report["metrics"]["validation"]["image+text"]["confidence_at_90_percent_coverage"]
    assert f"{100 * line:.1f} %" in page.locator("#scores").inner_text()


# --- ways to enter inputs ---


def test_a_chosen_image_alone(page):
    choose(page, EXAMPLES / "tiger.png")
    page.wait_for_selector(".headline strong")
    assert headline(page).inner_text().startswith("animals")
    assert columns(page) == ["Label", "Picture only"]
    assert "From the picture alone." in page.locator("#verdict").inner_text()
    page.get_by_role("button", name="Remove").click()
    page.wait_for_selector("#answer .chip")
    assert not page.locator("#inputs .drop img").is_visible()


def test_words_alone_are_answered_while_one_types(page):
    page.locator("#input-text").press_sequentially("a tiger on the prowl", delay=20)
    page.wait_for_selector(".headline strong")
    assert headline(page).inner_text().startswith("animals")
    assert columns(page) == ["Label", "Words only"]


def test_typing_sends_one_request_after_a_pause(page):
    sent = classified(page)
    page.evaluate("""() => {
        const area = document.querySelector("#input-text");
        for (const letter of "tiger") {
            area.value += letter;
            area.dispatchEvent(new Event("input"));
        }
    }""")
    page.wait_for_selector(".headline strong")
    assert len(sent) == 1


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_an_image_that_is_dropped_or_pasted(page, bring, event):
    bring(page, event, EXAMPLES / "tiger.png")
    page.wait_for_selector(".headline strong")
    assert headline(page).inner_text().startswith("animals")
    assert page.locator("#inputs .drop img").is_visible()
    assert "tiger.png" in page.locator("#inputs .under span").inner_text()


def test_times_are_shown_by_stage(page):
    page.locator("#input-text").fill("a tiger")
    page.wait_for_selector("#timings li")
    assert "ms in the service" in page.locator("#timings").inner_text()
    assert page.locator("#timings li").count() >= 3


# --- the newest answer wins ---


def test_an_older_answer_never_overwrites_a_newer_one(page):
    held, aborted = [], []
    page.on("requestfailed", lambda request: aborted.append(request.url))

    def hold(route):
        if "flag of france" in (route.request.post_data or ""):
            held.append(route)
        else:
            route.continue_()

    page.route("**/v1/classify", hold)
    page.locator("#input-text").fill("flag of france")
    for _ in range(100):
        if held:
            break
        page.wait_for_timeout(20)
    assert held
    page.locator("#input-text").fill("a tiger on the prowl")
    page.wait_for_selector(".headline strong")
    late = {
        "model": "illustrations",
        "digest": "0" * 64,
        "modalities": ["text"],
        "labels": [{"label": "late", "score": 1}],
    }
    held[0].fulfill(status=200, content_type="application/json", body=json.dumps(late))
    page.wait_for_timeout(300)
    assert headline(page).inner_text().startswith("animals")
    assert [url for url in aborted if url.endswith("v1/classify")]


def test_going_back_to_an_answered_input_sends_nothing(page):
    for text in ("a tiger", "a boat"):
        page.locator("#input-text").fill(text)
        page.wait_for_selector("#scores tbody tr")
        page.wait_for_timeout(500)
    sent = classified(page)
    page.locator("#input-text").fill("a tiger")
    page.wait_for_timeout(500)
    assert headline(page).inner_text().startswith("animals")
    assert not sent


# --- when it does not work ---


def test_a_file_that_is_no_image_is_reported_in_plain_words(page, tmp_path):
    (tmp_path / "note.png").write_bytes(b"not a picture")
    choose(page, tmp_path / "note.png")
    page.wait_for_selector("#trouble:visible")
    problem = page.locator("#trouble").inner_text()
    assert "This is no picture that the model can read." in problem
    assert "image: bytes of no known picture format" in problem
    assert "unsupported_format" in problem
    choose(page, EXAMPLES / "tiger.png")
    page.wait_for_selector(".headline strong")
    assert not page.locator("#trouble").is_visible()


def test_an_image_beyond_the_limit_is_not_sent(open_page, toys, tmp_path):
    (tmp_path / "large.png").write_bytes((EXAMPLES / "camera.png").read_bytes() + bytes(2000))
    page = open_page(toys("single-label", max_image_bytes=1000), ready="#answer .chip")
    sent = classified(page)
    choose(page, tmp_path / "large.png")
    page.wait_for_selector("#trouble:visible")
    assert "this service reads at most 1,000" in page.locator("#trouble").inner_text()
    assert not sent


def test_the_problem_of_a_busy_service_has_its_retry_after(page):
    problem = {"code": "overloaded", "detail": "queue: full", "instance": "abc", "status": 429}
    page.route(
        "**/v1/classify",
        lambda route: route.fulfill(
            status=429, headers={"Retry-After": "3"}, content_type="application/problem+json", body=json.dumps(problem)
        ),
    )
    page.locator("#input-text").fill("a tiger")
    page.wait_for_selector("#trouble:visible")
    assert "too busy" in page.locator("#trouble").inner_text()
    assert "in 3 s" in page.locator("#trouble").inner_text()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(lambda route: route.abort(), "The service does not answer.", id="gone"),
        pytest.param(lambda route: route.fulfill(status=502, body="<h1>proxy"), "in its place", id="a-proxy-answers"),
        pytest.param(
            lambda route: route.fulfill(status=418, json={"code": "never_heard_of", "detail": "tea"}),
            "The service could not answer this.",
            id="a-code-of-a-later-release",
        ),
    ],
)
def test_anything_but_an_answer_is_reported(page, answer, words):
    page.route("**/v1/classify", answer)
    page.locator("#input-text").fill("a tiger")
    page.wait_for_selector("#trouble:visible")
    assert words in page.locator("#trouble").inner_text()


def test_an_example_that_cannot_be_fetched_is_reported(page):
    page.route("**/web/examples/*.png", lambda route: route.abort())
    page.get_by_role("button", name="Example: a slice of lime").click()
    page.wait_for_selector("#trouble:visible")
    assert "The service does not answer." in page.locator("#trouble").inner_text()


def test_a_caption_is_never_read_as_html(page):
    page.locator("#input-text").fill("<img src=x onerror=alert(1)> a tiger")
    page.wait_for_selector(".headline strong")
    assert "<img" in page.locator("#snippet").inner_text()
    assert page.locator("#snippet img").count() == 0


# --- the code ---

CAPTION = """a tiger's "prowl" $HOME `id` \\ ü"""


def snippet(page, language):
    page.get_by_role("tab", name=language).click()
    return page.locator("#snippet code").text_content()


@pytest.mark.parametrize("inputs", ["both", "words", "nothing"])
@pytest.mark.parametrize(
    ("language", "command"),
    [
        pytest.param("curl", ["bash", "-c"], id="curl"),
        pytest.param("Python", [sys.executable, "-W", "ignore", "-c"], id="python"),
        pytest.param("JavaScript", ["node", "--input-type=module", "-e"], id="javascript"),
    ],
)
def test_the_code_that_is_shown_runs(page, language, command, inputs, tmp_path):
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    awkward = tmp_path / 'a "tiger", 1.png'
    for name in (awkward.name, "picture.png"):
        shutil.copyfile(EXAMPLES / "tiger.png", tmp_path / name)
    if inputs != "nothing":
        page.locator("#input-text").fill(CAPTION)
    if inputs == "both":
        choose(page, awkward)
    code = snippet(page, language)
    done = subprocess.run([*command, code], check=False, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "illustrations" in done.stdout
    assert ("image" in done.stdout) == (inputs != "words")


def test_the_code_is_copied(open_page, address):
    page = open_page(address, permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy").click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()").startswith("curl http://127.0.0.1")


# --- other targets, other models ---


NONE_SELECTED = {
    "model": "multi-label",
    "digest": "ab" * 32,
    "modalities": ["text"],
    "labels": [{"label": label, "score": 0.1, "selected": False} for label in ("red", "green", "blue")],
}


def test_several_labels_are_shown_with_their_thresholds(open_page, toys):
    page = open_page(toys("multi-label"), ready="#answer .chip")
    page.locator("#input-text").fill("red red red green green blue")
    page.wait_for_selector(".chip.chosen")
    assert page.locator(".chip.chosen").all_inner_texts() == ["red 95.3 %", "green 88.1 %", "blue 73.1 %"]
    assert page.locator("#scores .mark").count() == 3
    page.route("**/v1/classify", lambda route: route.fulfill(status=200, json=NONE_SELECTED))
    page.locator("#input-text").fill("something else")
    page.get_by_text("No label fits well enough").wait_for()


def test_a_number_is_shown_with_its_interval(open_page, toys):
    page = open_page(toys("regression"))
    page.wait_for_selector("#answer .key")
    page.locator("#input-text").fill("red red")
    page.wait_for_selector(".headline strong")
    assert headline(page).inner_text() == "14"  # 10 + 2 for each of two reds
    assert "11 to 17 with a probability of 90.0 %" in page.locator("#verdict").inner_text()
    choose(page, EXAMPLES / "tiger.png")
    page.wait_for_selector(".values tr:nth-child(3) .point")
    assert page.locator(".values th").all_inner_texts() == ["Together", "Picture only", "Words only"]


def test_one_of_several_models_is_chosen(open_page, toys):
    page = open_page(toys("single-label", "regression"), ready="#answer .chip")
    page.locator("#input-text").fill("red red")
    page.wait_for_selector("#scores table")
    page.locator("#model").select_option("regression")
    page.wait_for_selector(".values")
    assert headline(page).inner_text() == "14"
    assert "model=regression" in page.locator("#snippet").inner_text()
