"""index.html is self-contained, runs no scripts, and shows the metrics, the worst mistakes and the skipped rows."""

import base64
import csv
import hashlib
import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from PIL import Image

from polymodal.model.evaluation import evaluate
from polymodal.model.evaluation.folder import write_folder
from polymodal.model.evaluation.page import write_page
from polymodal.model.spelling import spelled

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; DROP TABLE words; -- &lt;b&gt; </style><style>*{}",
    "\u202egnirts desrever",
]


class Page(HTMLParser):
    """Elements with their attributes, and the text between them."""

    def __init__(self, text):
        super().__init__()
        self.elements = []
        self.texts = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def evaluation(served, manifest_folder, tmp_path_factory):
    """Rows whose texts and ids are attacks; most labels are wrong, so that the rows are shown as mistakes; one row is skipped."""
    folder = tmp_path_factory.mktemp("hostile")
    Image.open(manifest_folder / "images/test-sea-0.png").resize((400, 360)).save(folder / "large.png")
    rows = [
        {"id": f"{number} {text}", "text": f"{text} blue, deep water", "image": "large.png", "label": "tomato"}
        for number, text in enumerate(HOSTILE)
    ]
    rows.append({"id": "right", "text": "blue, deep water", "image": "large.png", "label": "sea"})
    rows.append({"id": "skipped", "text": "words", "image": "", "label": "<script>alert(2)</script>"})
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, ["id", "text", "image", "label"])
        table.writeheader()
        table.writerows(rows)
    return evaluate(served, folder)


@pytest.fixture(scope="module")
def folder(evaluation, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "report"
    write_folder(evaluation, out)
    return out


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "index.html").read_text(encoding="utf-8"))


def test_the_folder_holds_metrics_figures_and_the_page(folder, evaluation):
    figures = [f"{kind}-{key}" for kind in ("confusion", "reliability") for key in ("image+text", "image", "text")]
    files = ["index.html", "metrics.json", *(f"{name}.{suffix}" for name in figures for suffix in ("png", "svg"))]
    assert sorted(path.name for path in folder.iterdir()) == sorted(files)
    assert json.loads((folder / "metrics.json").read_bytes()) == json.loads(json.dumps(evaluation.as_json()))


def test_hostile_texts_are_shown_as_text(page):
    known = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "dl", "dt", "dd", "div", "table"}
    known |= {"thead", "tbody", "tr", "th", "td", "img", "ul", "li", "span", "strong", "code"}
    assert {tag for tag, _ in page.elements} <= known
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    for number, text in enumerate(HOSTILE):
        assert f"{text} blue, deep water" in page.texts
        assert f"{number} {spelled(text)}" in page.texts  # an id has no characters that reverse its letters
    assert any("label '<script>alert(2)</script>' is not one of the bundle's" in text for text in page.texts)


def test_hostile_labels_and_names_are_escaped(evaluation):
    labels = ("<script>alert(3)</script>", "tomato")
    description = replace(evaluation.description, labels=labels, name="<script>alert(4)</script>")
    metrics = {
        key: {**measures, "labels": dict(zip(labels, measures["labels"].values(), strict=True))}
        for key, measures in evaluation.metrics.items()
    }
    target = replace(evaluation.target, labels=labels)
    page = Page(write_page(replace(evaluation, description=description, target=target, metrics=metrics), {}))
    assert not page.all("script")
    assert labels[0] in page.texts
    assert "<script>alert(4)</script>: all rows" in page.texts


def test_the_page_loads_no_other_file(page):
    for _, attributes in page.elements:
        assert not {"href", "srcset", "action", "style"} & set(attributes)
        assert attributes.get("src", "data:").startswith("data:")
    assert page.all("img")
    assert not page.all("link")


def test_the_policy_allows_only_this_style_and_inlined_images(page, folder):
    (policy,) = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    text = (folder / "index.html").read_text(encoding="utf-8")
    style = text.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert rules["style-src"] == f"'sha256-{digest}'"
    assert rules["img-src"] == "data:"
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert text.index("Content-Security-Policy") < text.index("<title>")


def test_the_worst_mistakes_are_shown_with_the_prediction(page, evaluation):
    """Four of five rows are wrong for each of three sets of modalities; the right one is not shown."""
    assert page.texts.count("sea") >= 3 * 4
    assert "4 of 5 answers are wrong. These are the wrong ones that it is surest of." in page.texts
    assert "right" not in page.texts
    both = evaluation.answers["image+text"]
    assert f", {both.scores[0].max():.0%} sure" in page.texts


def test_images_are_inlined_as_thumbnails(page):
    images = [image["src"] for image in page.all("img") if image["src"].startswith("data:image/webp")]
    assert len(images) == 2 * 4  # with "image+text" and "image", not with "text"
    assert max(map(len, images)) < 20_000


def test_a_deleted_image_is_named_as_missing(evaluation, tmp_path):
    rows = tuple(replace(row, inputs={**row.inputs, "image": tmp_path / "gone.png"}) for row in evaluation.rows)
    assert "(picture no longer there)" in Page(write_page(replace(evaluation, rows=rows), {})).texts


def test_a_model_without_mistakes_gets_a_sentence_in_their_place(evaluation):
    answers = evaluation.answers["text"]
    targets = evaluation.targets.copy()
    targets[answers.rows] = answers.scores.argmax(axis=1)
    only_text = replace(evaluation, targets=targets, answers={"text": answers})
    assert "None: every answer is right." in Page(write_page(only_text, {})).texts
