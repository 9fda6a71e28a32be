"""A model with other inputs: widgets, code and tables follow from /v1/models."""

import csv

import pytest

from tests.browser.conftest import EXAMPLES
from tests.sounds import tone, wav

INPUTS = [
    {"name": "image", "textual": False, "media_types": ["image/png", "image/jpeg"], "limits": {"max_bytes": 1_000_000}},
    {
        "name": "audio",
        "textual": False,
        "media_types": ["audio/wav", "audio/flac"],
        "limits": {"max_bytes": 100, "max_seconds": 60},
    },
    {"name": "title", "textual": True, "media_types": ["text/plain"], "limits": {"max_characters": 9}},
]
SOUND = b"RIFF....WAVE"


@pytest.fixture
def open_model(open_page, toys, change_models):
    """`open_model(inputs)`: the page of a model with these inputs, and the list of requests that it got."""

    def start(inputs):
        address, sent = toys("single-label"), []
        page = open_page(address)

        def describe(model):
            model.pop("task", None)
            model |= {"inputs": inputs, "target": "single-label", "tasks": ["classify"], "kind": "network"}

        def answer(route):
            form = route.request.post_data_buffer.decode("latin-1")
            used = [spec["name"] for spec in inputs if f'name="{spec["name"]}"' in form]
            sent.append(form)
            labels = [{"label": "red", "score": 0.9}, {"label": "green", "score": 0.1}, {"label": "blue", "score": 0}]
            route.fulfill(json={"model": "single-label", "digest": "ab", "modalities": used, "labels": labels})

        page.route("**/v1/classify", answer)
        change_models(page, f"{address}?again", describe)
        page.wait_for_selector("#answer .chip")
        return page, sent

    return start


@pytest.fixture
def sound(tmp_path):
    (tmp_path / "dog.wav").write_bytes(SOUND)
    return tmp_path / "dog.wav"


def test_each_input_has_a_widget(open_model):
    page, _ = open_model(INPUTS)
    assert page.locator("#inputs input, #inputs textarea").evaluate_all("all => all.map(({ id }) => id)") == [
        "input-image",
        "input-audio",
        "input-title",
    ]
    assert page.locator("#input-audio").get_attribute("accept").startswith("audio/*,.flac")
    assert (
        page.locator("label[for=input-audio]").inner_text()
        == "Drop a sound here, or choose one\nWAV, FLAC, MP3, M4A, Ogg, Opus, AAC or WebM"
    )
    assert page.get_by_label("title").get_attribute("id") == "input-title"
    assert page.locator("h1:visible").inner_text() == "Try the model"
    assert "what each input adds" in page.locator("#try-lead").inner_text()


def test_an_unknown_modality_has_a_widget_for_its_files(open_model, tmp_path):
    mesh = {"name": "mesh", "textual": False, "media_types": ["model/stl", "model/obj"], "limits": {}}
    page, sent = open_model([mesh, INPUTS[2]])
    assert page.locator("#input-mesh").get_attribute("accept") == "model/stl,model/obj"
    words = page.locator("label[for=input-mesh]").inner_text()
    assert words == "mesh: drop a file here, or choose one\nmodel/stl, model/obj"
    (tmp_path / "a.stl").write_bytes(b"solid")
    page.set_input_files("#input-mesh", tmp_path / "a.stl")
    page.wait_for_selector(".headline strong")
    assert 'name="mesh"; filename="a.stl"' in sent[0]
    assert page.locator("audio:visible, .drop img:visible").count() == 0


def test_a_sound_can_be_played_until_it_is_removed(open_model, tmp_path):
    page, _ = open_model(INPUTS)
    assert page.locator("audio").is_hidden()
    (tmp_path / "dog.wav").write_bytes(wav(tone(), 16_000))
    page.set_input_files("#input-audio", tmp_path / "dog.wav")
    page.wait_for_selector("audio:visible")
    page.wait_for_function("document.querySelector('audio').duration === 0.5")
    page.get_by_role("button", name="Remove").last.click()
    page.wait_for_selector("audio", state="hidden")
    assert page.locator("audio").get_attribute("src") is None


def test_a_file_of_another_modality_is_sent_under_its_name(open_model, sound):
    page, sent = open_model(INPUTS)
    page.set_input_files("#input-audio", sound)
    page.wait_for_selector(".headline strong")
    assert 'name="audio"; filename="dog.wav"' in sent[0]
    assert "dog.wav, 12 bytes" in page.locator("#inputs").inner_text()
    assert page.locator("#scores thead th").all_inner_texts() == ["Label", "Sound only"]
    page.locator("#input-title").fill("a dog")
    page.wait_for_selector("#scores .of-3")
    assert page.locator("#scores thead th").all_inner_texts() == ["Label", "Sound + title", "Sound only", "title only"]
    page.get_by_role("button", name="Remove").first.click()


def test_a_dropped_file_goes_to_the_input_that_takes_it(open_model, sound, bring):
    page, sent = open_model(INPUTS)
    page.set_input_files("#input-audio", sound)
    bring(page, "drop", EXAMPLES / "tiger.png")
    page.wait_for_selector("#scores .of-3")
    assert page.locator(".drop img").first.is_visible()
    assert any('name="image"' in form and 'name="audio"' in form for form in sent)


def test_a_file_beyond_its_own_limit_is_not_sent(open_model, tmp_path):
    page, sent = open_model(INPUTS)
    (tmp_path / "long.wav").write_bytes(bytes(101))
    page.set_input_files("#input-audio", tmp_path / "long.wav")
    page.wait_for_selector("#trouble:visible")
    assert "Sound has 101 bytes; this service reads at most 100" in page.locator("#trouble").inner_text()
    assert not sent


@pytest.mark.parametrize(
    ("language", "lines"),
    [
        pytest.param(
            "curl", ["-F image=@picture.png", "-F audio=@audio.wav", "'title=a small boat on a lake'"], id="curl"
        ),
        pytest.param(
            "Python",
            [
                'files={"image": open("picture.png", "rb"), "audio": open("audio.wav", "rb")},',
                'data={"title": "a small',
            ],
            id="python",
        ),
        pytest.param(
            "JavaScript",
            ['const file2 = "audio.wav";', 'form.append("audio", await openAsBlob(file2),'],
            id="javascript",
        ),
    ],
)
def test_the_code_names_every_input(open_model, language, lines):
    page, _ = open_model(INPUTS)
    page.get_by_role("tab", name=language).click()
    code = page.locator("#snippet code").text_content()
    assert [line for line in lines if line not in code] == []


def test_the_columns_of_a_table_are_the_inputs(open_model, tmp_path):
    page, sent = open_model(INPUTS)
    page.get_by_role("link", name="Many at once").click()
    assert (
        page.locator("#batch-sample").inner_text().startswith("image,audio,title\nboat.png,audio.wav,a sailing dinghy")
    )
    (tmp_path / "table.csv").write_text(
        "audio,title,text\ndog.tone,a dog,ignored\ncat.wav,,\n,,ignored\n,a cat,", encoding="utf-8"
    )
    (tmp_path / "dog.tone").write_bytes(SOUND)  # a type that no browser knows
    page.set_input_files("#batch-files", [tmp_path / "table.csv", tmp_path / "dog.tone"])
    page.get_by_text("4 rows · 1 file · 2 rows cannot be sent · ignored columns: text").wait_for()
    page.locator("#batch-start").click()
    page.get_by_text("4 of 4 done").wait_for()
    assert page.locator("#results thead th").all_inner_texts() == [
        *("Row", "Picture", "Sound", "title", "Answer", "Score"),
    ]
    assert page.locator("#results .failed").all_inner_texts() == [
        "The file cat.wav is not among the chosen files.",
        "No input.",
    ]
    assert ["audio" if 'name="audio"' in form else "title" for form in sent] == ["audio", "title"]
    with page.expect_download() as expected:
        page.get_by_role("button", name="Download CSV").click()
    with open(expected.value.path(), encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:4] == ["image", "audio", "title", "label"]
    assert (rows[0]["audio"], rows[0]["title"], rows[0]["prediction"]) == ("dog.tone", "a dog", "red")


def test_a_model_of_texts_alone_has_no_widget_for_files(open_model):
    page, sent = open_model(INPUTS[2:])
    assert page.locator("#inputs input").count() == 0
    page.locator(".example").first.click()
    page.wait_for_selector(".headline strong")
    assert "a sailing dinghy has capsized" in sent[0]
    assert "filename" not in sent[0]


def test_values_stay_when_another_model_takes_them_too(open_page, toys, change_models):
    address = toys("single-label", "regression")
    page = open_page(address)

    def without_images(model):
        if model["name"] == "regression":
            model["inputs"] = [spec for spec in model["inputs"] if spec["name"] == "text"]

    change_models(page, f"{address}?again", without_images)
    page.wait_for_selector("#answer .chip")
    page.locator("#input-text").fill("red red")
    page.set_input_files("#input-image", EXAMPLES / "tiger.png")
    page.locator("#model").select_option("regression")
    page.wait_for_selector(".values")
    assert page.locator("#inputs input").count() == 0
    assert page.input_value("#input-text") == "red red"
    page.locator("#model").select_option("single-label")
    page.wait_for_selector(".drop img:visible")
