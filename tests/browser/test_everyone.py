"""Accessibility: keyboard, screen readers, themes, phones."""

import pytest

from tests.browser.conftest import EXAMPLES, PROJECT

AXE = PROJECT / "build/browser/node_modules/axe-core/axe.min.js"
VIEWS = ("#try", "#batch", "#compare", "#model")


def visit(page, view):
    """Open a view and fill it."""
    page.evaluate(f"location.hash = '{view}'")
    if view == "#try":
        page.locator(".example").nth(2).click()
        page.wait_for_selector("#scores .only-text.bar")
    elif view == "#batch":
        page.locator("#batch-examples").click()
        page.get_by_text("5 of 5 done").wait_for()
    elif view == "#compare":
        page.fill("#query-words", "something to eat")
        page.locator("#query-examples .example").nth(1).click()
        for side in ("words", "picture"):
            page.wait_for_selector(f"#by-{side}-list .bar")
    else:
        page.wait_for_selector(".confusion")


# --- keyboard ---


def focused(page):
    return page.evaluate("(document.activeElement.id || document.activeElement.textContent || '').trim()")


def tab_to(page, name, most=30):
    for _ in range(most):
        page.keyboard.press("Tab")
        if focused(page) == name:
            return
    pytest.fail(f"{most} tabs do not reach {name}")


def test_an_item_is_classified_and_its_code_read_by_keyboard_alone(page):
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to the content"
    page.keyboard.press("Enter")
    tab_to(page, "input-image", most=3)  # the navigation was skipped
    tab_to(page, "input-text")
    page.keyboard.type("a tiger on the prowl")
    page.wait_for_selector(".headline strong")
    tab_to(page, "code-curl")
    page.keyboard.press("ArrowRight")
    assert focused(page) == "code-python"
    assert "httpx.post(" in page.locator("#snippet").inner_text()
    tab_to(page, "copy", most=1)


def test_an_example_is_chosen_by_keyboard(page):
    for _ in range(30):
        page.keyboard.press("Tab")
        if "tiger" in (page.evaluate("document.activeElement.getAttribute('aria-label')") or ""):
            break
    page.keyboard.press("Enter")
    page.wait_for_selector("#scores .only-text.bar")
    assert page.locator(".headline").inner_text().startswith("animals")


def test_the_focus_is_visible(page):
    page.locator("#input-text").focus()
    page.keyboard.press("Shift+Tab")
    outline = page.evaluate(
        "getComputedStyle(document.activeElement.closest('label') ?? document.activeElement).outlineStyle"
    )
    assert outline == "solid"


def test_the_back_button_returns_to_the_view_before(page):
    page.get_by_role("link", name="The model").click()
    page.wait_for_selector("#model-title:visible")
    page.go_back()
    page.wait_for_selector("#try-title:visible")
    assert page.locator("nav [aria-current]").inner_text() == "Try it"


# --- screen readers ---


@pytest.fixture
def violations():
    """`violations(page)`: what axe-core reports about a page."""
    if not AXE.is_file():
        pytest.skip(f"{AXE.relative_to(PROJECT)} is not there: make test-browser installs it where there is npm")

    def run(page):
        page.evaluate(AXE.read_text(encoding="utf-8"))
        rules = page.evaluate("axe.run().then(({ violations }) => violations)")
        return [(rule["impact"], rule["id"], [node["html"] for node in rule["nodes"][:3]]) for rule in rules]

    return run


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_axe_reports_nothing(open_page, address, violations, view, theme):
    page = open_page(address, color_scheme=theme, ready="#answer .chip")
    visit(page, view)
    assert not violations(page)


def test_axe_reports_nothing_on_the_empty_page_and_in_problems(page, violations, tmp_path):
    assert not violations(page)
    (tmp_path / "note.png").write_bytes(b"not a picture")
    page.set_input_files("#input-image", tmp_path / "note.png")
    page.wait_for_selector("#trouble:visible")
    assert not violations(page)


def test_an_answer_is_announced(page):
    assert page.locator("#verdict").get_attribute("role") == "status"
    assert page.locator("#trouble").get_attribute("role") == "alert"


# --- dark and light ---


def background(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_the_page_follows_the_systems_theme_until_another_is_chosen(open_page, address):
    page = open_page(address, color_scheme="dark")
    dark = background(page)
    button = page.locator("#theme")
    assert button.get_attribute("aria-label") == "Theme: as in the system"
    button.click()
    assert button.get_attribute("aria-label") == "Theme: light"
    light = background(page)
    assert light != dark
    page.reload()
    page.wait_for_selector(".example img")
    assert background(page) == light
    button.click()
    assert background(page) == dark
    page.emulate_media(color_scheme="light")
    assert background(page) == dark
    button.click()
    assert background(page) == light


# --- a phone ---


@pytest.mark.parametrize("view", VIEWS)
def test_no_view_is_wider_than_a_phone(open_page, address, view):
    page = open_page(
        address, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True, ready="#answer .chip"
    )
    visit(page, view)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator("h1:visible").bounding_box()["width"] <= 360


def test_on_a_phone_the_answer_comes_into_view(open_page, address):
    page = open_page(
        address, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True, ready="#answer .chip"
    )
    page.locator(".example").first.tap()
    page.wait_for_selector("#scores .only-text.bar")
    assert page.locator("#verdict").bounding_box()["y"] < 740


def test_it_works_without_any_storage(open_page, address):
    page = open_page(address)
    page.add_init_script(
        "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('off', 'SecurityError'); } })"
    )
    page.reload()
    page.wait_for_selector("#answer .chip")
    page.locator("#theme").click()
    page.set_input_files("#input-image", EXAMPLES / "tiger.png")
    page.wait_for_selector(".headline strong")
