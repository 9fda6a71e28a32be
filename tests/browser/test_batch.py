"""Many items at once: files in, a few requests at a time, and a table out that is safe in a spreadsheet."""

import csv
import json
import time

import pytest

from tests.browser.conftest import EXAMPLES


@pytest.fixture
def page(open_page, address):
    page = open_page(address, ready="#answer .chip")
    page.get_by_role("link", name="Many at once").click()
    page.wait_for_selector("#batch-form:visible")
    return page


@pytest.fixture
def table(tmp_path):
    """`table("image,text", row, …)`: a CSV file."""

    def write(*lines, encoding="utf-8"):
        path = tmp_path / "things.csv"
        path.write_bytes("\n".join(lines).encode(encoding))
        return path

    return write


def choose(page, *files):
    page.set_input_files("#batch-files", list(files))


def start(page):
    page.locator("#batch-start").click()


def finish(page, rows):
    page.get_by_text(f"{rows} of {rows} done").wait_for()
    page.wait_for_selector("#batch-cancel", state="hidden")


def cells(page, column):
    return page.locator(f"#results tbody td:nth-child({column})").all_inner_texts()


def downloaded(page):
    with page.expect_download() as expected:
        page.get_by_role("button", name="Download CSV").click()
    with open(expected.value.path(), encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_a_table_with_its_images(page):
    choose(page, EXAMPLES / "manifest.csv", *EXAMPLES.glob("*.png"))
    page.get_by_text("6 rows · 6 pictures").wait_for()
    start(page)
    finish(page, 6)
    assert cells(page, 1) == ["1", "2", "3", "4", "5", "6"]
    assert "4 of 6 equal to the table's label" in page.locator("#results-count").inner_text()
    page.locator("#results-show").select_option("wrong")
    assert page.locator("#results tbody tr").count() == 2
    page.locator("#results-show").select_option("all")
    page.get_by_label("Search").fill("tiger")
    assert page.locator("#results tbody tr").count() == 1


def test_results_are_sorted_by_any_column(page):
    page.locator("#batch-examples").click()
    finish(page, 5)
    page.get_by_role("button", name="Score").click()
    scores = [float(cell.strip("%<> \n")) for cell in cells(page, 5)]
    assert scores == sorted(scores, reverse=True)
    assert page.locator("#results th.column-score").get_attribute("aria-sort") == "descending"
    page.get_by_role("button", name="Score").click()
    assert cells(page, 5)[0] == f"{min(scores)} %"
    assert page.evaluate("document.activeElement.dataset.column") == "score"


def test_a_folder_of_images(page, tmp_path):
    folder = tmp_path / "pictures"
    (folder / "deeper").mkdir(parents=True)
    for name in ("tiger.png", "deeper/lime.png"):
        (folder / name).write_bytes((EXAMPLES / name.rpartition("/")[2]).read_bytes())
    (folder / "note.txt").write_text("no picture", encoding="utf-8")
    page.set_input_files("#batch-folder", folder)
    page.get_by_text("2 rows · 2 pictures").wait_for()
    start(page)
    finish(page, 2)
    assert [cell.split()[0] for cell in cells(page, 4)] == ["food", "animals"]
    assert [cell.strip() for cell in cells(page, 2)] == ["pictures/deeper/lime.png", "pictures/tiger.png"]


def test_files_dropped_on_the_page_become_a_batch(open_page, address, bring):
    page = open_page(address, ready="#answer .chip")
    bring(page, "drop", EXAMPLES / "tiger.png", EXAMPLES / "lime.png")
    page.get_by_text("2 rows · 2 pictures").wait_for()


def test_a_row_that_cannot_be_sent_fails_alone(page, table):
    broken = table("image,text", "nowhere.png,a boat", ",", '"",a tiger', "x,y,z", "tiger.png,")
    choose(page, broken, EXAMPLES / "tiger.png", EXAMPLES / "lime.png")
    page.get_by_text("4 rows · 1 picture · 2 rows cannot be sent · 1 picture is in no row").wait_for()
    start(page)
    finish(page, 4)
    problems = page.locator("#results .failed").all_inner_texts()
    assert problems == [
        "The picture nowhere.png is not among the chosen files.",
        "3 cells, but 2 columns; a text with commas needs quotes around it.",
    ]


@pytest.mark.parametrize(
    ("lines", "encoding", "words"),
    [
        pytest.param(["picture,words", "a,b"], "utf-8", "needs image or text", id="other-columns"),
        pytest.param(
            ["image,text", ",grün"], "cp850", "is not text in UTF-8, UTF-16 or Windows-1252 (line 2)", id="encoding"
        ),
        pytest.param(
            ["text,label", '"5" screen,x'], "utf-8", "line 2: text follows the quote", id="text-after-a-quote"
        ),
        pytest.param(["text,label", '"a,x', "b,y"], "utf-8", "line 2: a quote opens a cell", id="open-quote"),
        pytest.param(["text,Text", "a,b"], "utf-8", "has the column text more than once", id="column-twice"),
    ],
)
def test_a_table_that_cannot_be_read_is_explained(page, table, lines, encoding, words):
    choose(page, table(*lines, encoding=encoding))
    page.wait_for_selector("#batch-trouble:visible")
    assert words in page.locator("#batch-trouble").inner_text()
    choose(page, EXAMPLES / "tiger.png")  # and the next attempt works
    page.get_by_text("1 row · 1 picture").wait_for()
    assert not page.locator("#batch-trouble").is_visible()


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(['"image","text"', ',"a ""tiger"", on', 'the prowl"'], id="quotes-and-lines"),
        pytest.param(["\ufeffImage;Text", ";a tiger"], id="byte-order-mark-and-semicolons"),
        pytest.param(["image\ttext\r", "\ta tiger\r", "\r"], id="tabs-and-windows-lines"),
    ],
)
def test_other_forms_of_tables_are_read(page, table, lines):
    choose(page, table(*lines))
    page.get_by_text("1 row ·").wait_for()
    start(page)
    finish(page, 1)
    assert cells(page, 4)[0].split()[0] == "animals"


def test_how_a_table_was_read_is_reported(page, table):
    choose(page, table("Text;Mood", "grün;calm", ";", encoding="cp1252"))
    page.get_by_text(
        "1 row · 0 pictures · things.csv: read as Windows-1252 (“grün”), separated by semicolons"
    ).wait_for()
    assert page.locator("#batch-state").inner_text().endswith("ignored columns: mood")
    page.get_by_role("button", name="Start over").click()
    choose(page, table("text", "plain"))
    page.get_by_text("1 row ·").wait_for()
    assert "read as" not in page.locator("#batch-state").inner_text()


def test_excels_unicode_text_is_a_table_and_another_text_is_not(page, tmp_path):
    (tmp_path / "things.txt").write_bytes("image\ttext\r\n\tein Tiger\r\n".encode("utf-16"))
    choose(page, tmp_path / "things.txt")
    page.get_by_text("things.txt: read as UTF-16, separated by tabs").wait_for()
    page.get_by_role("button", name="Start over").click()
    (tmp_path / "notes.txt").write_text("Remember the milk", encoding="utf-8")
    choose(page, tmp_path / "notes.txt", EXAMPLES / "tiger.png")
    page.get_by_text("1 row · 1 picture").wait_for()


def test_a_workbook_is_explained(page, tmp_path):
    (tmp_path / "things.xlsx").write_bytes(b"PK\x03\x04")
    choose(page, tmp_path / "things.xlsx")
    page.get_by_text("things.xlsx is a workbook. In the spreadsheet, save the sheet as “CSV UTF-8”").wait_for()


def test_a_downloaded_table_has_no_formulas(page, table):
    texts = ["=1+1", "+1", "-1", "@SUM(A1)", "a, b", 'say ""hi""', "harmless"]
    choose(page, table("text", *(f'"{text}"' for text in texts)))
    start(page)
    finish(page, len(texts))
    rows = downloaded(page)
    assert [row["text"] for row in rows] == ["'=1+1", "'+1", "'-1", "'@SUM(A1)", "a, b", 'say "hi"', "harmless"]
    assert all(0 < float(row["score"]) <= 1 for row in rows)
    assert all(row["digest"] and row["model"] == "illustrations" for row in rows)
    assert sum(float(rows[0][column]) for column in rows[0] if column.startswith("score: ")) == pytest.approx(
        1, abs=1e-4
    )


def test_four_requests_run_at_once_and_cancel_aborts_all_of_them(page, table):
    held, aborted = [], []
    page.route("**/v1/classify", lambda route: held.append(route))  # noqa: PLW0108 — Playwright marks what it is given
    page.on("requestfailed", lambda request: aborted.append(request))  # noqa: PLW0108
    choose(page, table("text", *(f"thing {number}" for number in range(20))))
    start(page)
    page.wait_for_timeout(600)
    assert len(held) == 4
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_selector("#batch-start:visible")
    page.wait_for_timeout(300)
    assert len(held) == len(aborted) == 4


def test_cancelled_work_continues_where_it_stopped(page, table):
    routed = []

    def answer_two(route):
        routed.append(route)
        if len(routed) <= 2 or len(routed) > 6:
            route.continue_()

    page.route("**/v1/classify", answer_two)
    choose(page, table("text", *(f"thing {number}" for number in range(8))))
    start(page)
    page.get_by_text("2 of 8 done").wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Go on").click()
    finish(page, 8)
    assert len(routed) == 6 + 6
    assert page.locator("#results .failed").count() == 0


def test_no_request_is_sent_before_retry_after_is_over(page, table):
    moments = []
    problem = json.dumps({"code": "rate_limited", "detail": "key: too many requests", "instance": "", "status": 429})

    def refuse_the_first(route):
        moments.append(time.monotonic())
        if len(moments) == 1:
            route.fulfill(
                status=429, headers={"Retry-After": "1"}, content_type="application/problem+json", body=problem
            )
        else:
            route.continue_()

    page.route("**/v1/classify", refuse_the_first)
    choose(page, table("text", *(f"thing {number}" for number in range(6))))
    start(page)
    page.get_by_text("the service is busy").wait_for()
    finish(page, 6)
    assert len(moments) == 7
    # Running requests continued; no new one began before the second was over (a little less, because timers round).
    assert sum(moment - moments[0] > 0.9 for moment in moments) >= 3
    assert page.locator("#results .failed").count() == 0


def test_numbers_are_downloaded_with_their_intervals(open_page, toys, table):
    address = toys("regression")
    page = open_page(f"{address}#batch")
    choose(page, table("text", "red red", "red"))
    start(page)
    finish(page, 2)
    rows = downloaded(page)
    assert [(row["prediction"], row["low"], row["high"]) for row in rows] == [("14", "11", "17"), ("12", "9", "15")]


def test_several_labels_share_one_cell(open_page, toys, table):
    address = toys("multi-label")
    page = open_page(f"{address}#batch")
    choose(page, table("text,label", "red red red blue,blue|green|red"))
    start(page)
    finish(page, 1)
    assert cells(page, 5) == ["red|blue|green"]
    assert "1 of 1 equal to the table's label" in page.locator("#results-count").inner_text()
