"""The rules of the default data set, on tiny sources that the tests make; offline."""

import json
import stat
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from polymodal.model.manifest import open_table, read_manifest
from polymodal.model.modalities.image.near_duplicates import ALIKE, EQUAL, Fingerprint, near_pairs
from polymodal.model.training.sources import emoji, illustrations, images, openclipart, packages, tuxpaint
from polymodal.model.training.sources.captions import Mask, normalised
from polymodal.model.training.sources.grouping import (
    CONTRADICTORY,
    MAX_GROUP,
    REPEATED,
    duplicates,
    group_names,
    over_the_cap,
)
from polymodal.model.training.sources.images import Fingerprints, UnusableImage, fingerprint
from polymodal.model.training.sources.items import Item, Reading
from polymodal.model.training.sources.packages import Package, SourceError, obtain
from polymodal.model.training.sources.taxonomy import (
    DROPPED,
    LABELS,
    OPENCLIPART,
    TUXPAINT,
    label_by_emoji_group,
    label_by_folder,
    number_forms,
    taxonomy_words,
)


def draw(path, seed, size=(40, 30)):
    """Write an image of coarse coloured noise, which depends on the seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 200, (8, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST).save(path)
    return path


def item(name, label="animals", title="", **rest):
    return Item(f"openclipart/{name}", "openclipart", None, label, title, **rest)


def prints_for(items, same=()):
    """Fingerprints that are all different, except those of the items whose names are in `same`."""
    fingerprints = []
    for number, one in enumerate(items, start=1):
        noise = np.random.default_rng(0 if one.id.removeprefix("openclipart/") in same else number)
        fingerprints.append(Fingerprint(int(noise.integers(0, 2**63)), noise.bytes(16 * 16 * 3), 0.0))
    return fingerprints


def groups_of(items, same=()):
    return group_names(items, prints_for(items, same), MASK)


# --- labels ---


@pytest.mark.parametrize(
    ("folder", "label"),
    [
        ("animals/mammals/dogs", "animals"),
        ("buildings/homes", "places"),
        ("geography", "places"),
        ("people", "people"),
        ("people/clothing/hats", "objects"),
        ("recreation/holiday/christmas", "recreation"),
        ("transportation/vehicles", "transport"),
        ("transportation/roadsigns", "symbols"),
        ("transportation/aiga-symbols", "symbols"),
        ("signs_and_symbols/hazard", "symbols"),
        ("signs_and_symbols/flags/europe/france", "flags"),
        ("computer/hardware", "objects"),
        ("computer/icons/flat-theme/action", DROPPED),
        ("computer/buttons", DROPPED),
        ("shapes/stars", DROPPED),
        ("unsorted", DROPPED),
        ("something/new", None),
    ],
)
def test_the_longest_known_folder_gives_the_label(folder, label):
    assert label_by_folder(OPENCLIPART, folder) == label


@pytest.mark.parametrize(
    ("folder", "label"),
    [
        ("vehicles/ship", "transport"),
        ("town/houses", "places"),
        ("town/flags", "flags"),
        ("town/roadsigns", "symbols"),
        ("symbols/money/euro", "objects"),
        ("military/vehicles", "objects"),
        ("seasonal/winter", "recreation"),
        ("space/moon", DROPPED),
    ],
)
def test_folders_of_tux_paint_have_labels(folder, label):
    assert label_by_folder(TUXPAINT, folder) == label


@pytest.mark.parametrize(
    ("group", "subgroup", "label"),
    [
        ("smileys-emotion", "face-smiling", "people"),
        ("smileys-emotion", "heart", "symbols"),
        ("animals-nature", "animal-bug", "animals"),
        ("animals-nature", "plant-flower", "plants"),
        ("food-drink", "dishware", "objects"),
        ("travel-places", "transport-air", "transport"),
        ("travel-places", "place-map", "places"),
        ("travel-places", "sky-weather", DROPPED),
        ("objects", "musical-instrument", "recreation"),
        ("objects", "tool", "objects"),
        ("flags", "country-flag", "flags"),
        ("component", "skin-tone", DROPPED),
        ("", "", DROPPED),
    ],
)
def test_emoji_groups_have_labels(group, subgroup, label):
    assert label_by_emoji_group(group, subgroup) == label


def test_the_table_uses_all_labels_and_no_other():
    assert set(OPENCLIPART.values()) - {DROPPED} == set(LABELS)


@pytest.mark.parametrize(
    ("word", "other"),
    [("flags", "flag"), ("berries", "berry"), ("dish", "dishes"), ("people", "person"), ("stickmen", "stickman")],
)
def test_words_have_a_singular_and_a_plural(word, other):
    assert other in number_forms(word)
    assert word in number_forms(word)


def test_only_the_first_names_of_a_folder_are_taxonomy_words():
    words = taxonomy_words(["animals/mammals/dogs", "signs_and_symbols/flags/america/canada"])
    assert {"animal", "animals", "mammal", "mammals", "signs", "flag", "vehicle"} <= words
    assert not {"dog", "dogs", "canada", "and"} & words


# --- captions ---

MASK = Mask(taxonomy_words(["animals/birds", "plants/flowers"]))


@pytest.mark.parametrize(
    ("title", "masked"),
    [
        ("flag of Canada", "of Canada"),
        ("flag: Canada", "Canada"),
        ("Canada Flag", "Canada"),
        ("Two Birds (flying)", "Two (flying)"),
        ("map_symbols_tree", "map tree"),
        ("FLOWER, red", "red"),
        ("A flower.", ""),
        ("Kansasflag", ""),
        ("a fireplace", "a fireplace"),
        ("Löwe", "Löwe"),
        ("(plant)", ""),
    ],
)
def test_taxonomy_words_are_cut_out_of_titles(title, masked):
    assert MASK.title(title) == masked


def test_keywords_with_a_taxonomy_word_are_dropped():
    keywords = MASK.keywords(["signs_and_symbols", "red", "bird of prey", "signalflag", "united_nations_member"])
    assert keywords == ("red", "united nations member")


def test_empty_repeated_and_generated_keywords_are_dropped():
    assert MASK.keywords(["", "hash(0x8a0a39c)", "hash", "unsorted", "Red", "red", "--"]) == ("red",)


def test_the_text_is_the_masked_title_and_the_other_keywords():
    assert MASK.text("Red bird", ["bird", "red", "sky"]) == "Red, sky"
    assert MASK.text("bird", ["animal"]) == ""


@pytest.mark.parametrize(
    ("one", "other"),
    [("Flag of Canada", "flag: canada"), ("Candy 02", "candy"), ("Café", "cafe"), ("the horse", "A Horse!")],
)
def test_captions_are_compared_without_case_accents_punctuation_and_numbers(one, other):
    assert normalised(one) == normalised(other) != ""


# --- images ---


def test_the_same_drawing_on_another_canvas_is_nearly_equal(tmp_path):
    small = draw(tmp_path / "small.png", seed=1, size=(90, 80))
    wide = Image.new("RGB", (400, 300), "white")
    with Image.open(small) as drawing:
        wide.paste(drawing, (200, 20))
    wide.save(tmp_path / "wide.png")
    other = draw(tmp_path / "other.png", seed=2, size=(90, 80))
    fingerprints = [fingerprint(path) for path in (small, other, tmp_path / "wide.png")]
    assert list(near_pairs(fingerprints, EQUAL)) == [(0, 2)]


def test_flags_of_different_colours_are_not_near_duplicates(tmp_path):
    for name, colours in {"fr": ("blue", "white", "red"), "it": ("green", "white", "red")}.items():
        flag = Image.new("RGB", (60, 40))
        for stripe, colour in enumerate(colours):
            flag.paste(colour, (20 * stripe, 0, 20 * stripe + 20, 40))
        flag.save(tmp_path / f"{name}.png")
    assert list(near_pairs([fingerprint(tmp_path / "fr.png"), fingerprint(tmp_path / "it.png")], ALIKE)) == []


def test_white_strokes_on_transparency_are_not_lost(tmp_path):
    for name, box in {"dot": (4, 4, 12, 12), "bar": (2, 14, 28, 18)}.items():
        drawing = Image.new("RGBA", (30, 30), (0, 0, 0, 0))
        drawing.paste((255, 255, 255, 255), box)
        drawing.save(tmp_path / f"{name}.png")
    dot, bar = fingerprint(tmp_path / "dot.png"), fingerprint(tmp_path / "bar.png")
    assert dot.aspect == 0
    assert bar.aspect > 1


def test_too_many_pixels_are_rejected_before_decoding(tmp_path, monkeypatch):
    path = draw(tmp_path / "large.png", seed=1)
    monkeypatch.setattr(images, "MAX_PIXELS", 40 * 30 - 1)
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("decoded"))
    with pytest.raises(UnusableImage, match="40 × 30 px; allowed: 1,199 pixels"):
        fingerprint(path)


@pytest.mark.parametrize("content", [b"", b"GIF89a"], ids=["empty", "truncated"])
def test_a_broken_image_is_unusable(tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(UnusableImage, match="undecodable"):
        fingerprint(tmp_path / "x.png")


def test_an_image_below_eight_pixels_is_unusable(tmp_path):
    with pytest.raises(UnusableImage, match="39 × 7 px; allowed: sides from 8 px"):
        fingerprint(draw(tmp_path / "x.png", 1, size=(39, 7)))


def test_an_image_is_not_decoded_again_in_the_next_run(tmp_path, monkeypatch):
    paths = [draw(tmp_path / "x.png", 1), draw(tmp_path / "tiny.png", 1, size=(3, 3))]
    first = Fingerprints(tmp_path / "known.json")
    results = list(first.of(paths))
    first.save()
    monkeypatch.setattr(images, "fingerprint", lambda path: pytest.fail("decoded again"))
    again = list(Fingerprints(tmp_path / "known.json").of(paths))
    assert again[0] == results[0]
    assert str(again[1]) == str(results[1])


# --- groups ---


def test_masked_or_unmasked_equal_captions_make_a_group():
    items = [
        item("a", title="Canada", keywords=("snow",)),
        item("b", title="flag of Canada", keywords=("red",)),
        item("c", title="Chile flag"),
        item("d", title="A flower", keywords=("rose",)),  # empty when masked, but equal to the next
        item("e", title="flower 2", keywords=("lily",)),
    ]
    groups = groups_of(items)
    assert groups[0] == groups[1]
    assert groups[3] == groups[4]
    assert len(set(groups)) == 3


def test_captions_of_different_sources_make_a_group():
    items = [item("a", title="horse"), replace(item("b", title="A horse!"), source="emoji", concept="horse")]
    assert len(set(groups_of(items))) == 1


def test_an_emoji_in_several_tones_and_genders_is_a_group():
    names = ["man running", "woman running", "person running", "man running: medium-dark skin tone"]
    items = [item(name, title=name, concept=emoji.concept(name)) for name in [*names, "man swimming"]]
    groups = groups_of(items)
    assert len(set(groups[:4])) == 1
    assert groups[4] != groups[0]


@pytest.mark.parametrize(
    ("name", "concept"),
    [
        ("family: man, woman, boy", "family"),
        ("woman walking: facing right", "walking"),
        ("man: curly hair", "curly hair"),
        ("older person", "person"),
        ("waving hand", "waving hand"),
    ],
)
def test_a_concept_has_no_gender_age_or_direction(name, concept):
    assert emoji.concept(name) == concept


def test_numbered_variants_of_one_author_and_folder_are_a_group():
    groups = groups_of([item("a", title="Ram", series="x"), item("b", title="Ewe", series="x"), item("c", series="y")])
    assert groups[0] == groups[1] != groups[2]


def test_near_duplicates_are_a_group():
    groups = groups_of([item("a", title="Ram"), item("b", title="Ewe"), item("c", title="Bee")], same={"a", "c"})
    assert groups[0] == groups[2] != groups[1]


def test_items_belong_together_through_others():
    items = [item("a", title="Ram", series="x"), item("b", series="x"), item("c", title="Bee")]
    assert len(set(groups_of(items, same={"b", "c"}))) == 1


def test_items_without_any_caption_are_separate_groups():
    assert len(set(groups_of([item("a"), item("b"), item("c", title="flag"), item("d", title="symbol")]))) == 4


def test_a_group_is_named_after_its_first_id_in_any_order():
    items = [item("b", title="Ram"), item("a", title="ram"), item("c", title="RAM")]
    for ordered in (items, items[::-1]):
        assert set(groups_of(ordered)) == {"openclipart/a"}


def test_no_items_have_no_groups():
    assert groups_of([]) == []


def test_the_same_twelve_items_of_a_group_stay_in_any_order():
    items = [item(f"{number:02}") for number in range(20)]
    groups = ["g"] * 19 + ["h"]
    leaving = over_the_cap(items, groups)
    assert len(leaving) == 19 - MAX_GROUP
    assert over_the_cap(items[::-1], groups[::-1]) == leaving


@pytest.mark.parametrize(
    ("label", "title", "dropped"),
    [
        pytest.param("recreation", "axe", {"tools/axe": CONTRADICTORY, "other/axe": CONTRADICTORY}, id="two-labels"),
        pytest.param("objects", "Axe", {"tools/axe": REPEATED}, id="one-label"),
        pytest.param("recreation", "Hatchet", {}, id="other-caption"),
    ],
)
def test_equal_images_with_equal_captions_are_dropped(label, title, dropped):
    items = [item("tools/axe", "objects", "Axe"), item("other/axe", label, title)]
    leaving = duplicates(items, prints_for(items, {"tools/axe", "other/axe"}))
    assert leaving == {f"openclipart/{name}": rule for name, rule in dropped.items()}


# --- sources ---

SVG = """<svg xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:cc="http://web.resource.org/cc/"
  xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns="http://www.w3.org/2000/svg"><metadata><rdf:RDF>
  <cc:Work><dc:title> {title} </dc:title><dc:subject><rdf:Bag>{keywords}</rdf:Bag></dc:subject>
  <dc:creator><cc:Agent><dc:title>Somebody</dc:title></cc:Agent></dc:creator></cc:Work></rdf:RDF></metadata></svg>"""


def clip(root, name, seed, title="", keywords=()):
    """One item of a fake Open Clip Art tree."""
    draw(root / "png" / f"{name}.png", seed)
    svg = root / "svg" / f"{name}.svg"
    svg.parent.mkdir(parents=True, exist_ok=True)
    nodes = "".join(f"<rdf:li>{keyword}</rdf:li>" for keyword in keywords)
    svg.write_text(SVG.format(title=title, keywords=nodes), encoding="utf-8")


@pytest.fixture
def clipart(tmp_path):
    root = tmp_path / "clipart"
    clip(root, "animals/birds/cigno_01", 1, "Cigno", ["bird", "white_swan"])
    clip(root, "animals/birds/cigno_02", 2, "Oca", ["bird"])
    clip(root, "tools/axe", 3, "Axe", ["tool"])
    clip(root, "recreation/axe", 3, "Axe", ["tool"])
    clip(root, "people/clothing/hats/fez", 4)
    clip(root, "shapes/stars/star", 5, "Star")
    return root


def read_clipart(root):
    return openclipart.read(root / "png", root / "svg")


def test_images_of_open_clip_art_have_their_metadata(clipart):
    reading = read_clipart(clipart)
    items = {one.id.removeprefix("openclipart/"): one for one in reading.items}
    assert reading.problems == ()
    assert sorted(items) == [
        "animals/birds/cigno_01",
        "animals/birds/cigno_02",
        "people/clothing/hats/fez",
        "recreation/axe",
        "shapes/stars/star",
        "tools/axe",
    ]
    assert items["shapes/stars/star"].label == ""
    swan = items["animals/birds/cigno_01"]
    assert (swan.title, swan.keywords, swan.author) == ("Cigno", ("bird", "white_swan"), "Somebody")
    assert swan.series == items["animals/birds/cigno_02"].series != items["tools/axe"].series
    assert items["people/clothing/hats/fez"].label == "objects"


def test_broken_metadata_and_unknown_folders_are_reported(clipart):
    (clipart / "svg/tools/axe.svg").write_text("<svg", encoding="utf-8")
    (clipart / "svg/recreation/axe.svg").unlink()
    clip(clipart, "novelties/thing", 9)
    reading = read_clipart(clipart)
    assert len(reading.items) == 4
    assert [problem.split(": ")[0] for problem in reading.problems] == [
        "openclipart/novelties/thing.png",
        "openclipart/recreation/axe.png",
        "openclipart/tools/axe.png",
    ]


@pytest.fixture
def emoji_folders(tmp_path):
    """Emoji of two vendors, one of which is left out, with the files of emojibase."""
    names = tmp_path / "emoji/en"
    names.mkdir(parents=True)
    messages = {
        "groups": [{"key": "animals-nature", "order": 3}, {"key": "travel-places", "order": 5}],
        "subgroups": [{"key": "animal-bird", "order": 35}, {"key": "sky-weather", "order": 59}],
    }
    data = [
        {"label": "swan", "hexcode": "1F9A2", "tags": ["bird", "ugly"], "group": 3, "subgroup": 35},
        {"label": "eagle", "hexcode": "1F985", "group": 3, "subgroup": 35},
        {"label": "sun", "hexcode": "2600", "group": 5, "subgroup": 59},
        {"label": "regional indicator A", "hexcode": "1F1E6"},
    ]
    (names / "messages.json").write_text(json.dumps(messages))
    (names / "data.json").write_text(json.dumps(data))
    for number, file in enumerate(
        ["google/1f9a2.png", "google/2600-fe0f.png", "fluent/1f9a2.webp", "fluent/1f985.webp"]
    ):
        draw(tmp_path / "emoji" / file, 100 + number)
    return names, {vendor: tmp_path / "emoji" / vendor for vendor in ("google", "fluent")}


def test_emoji_have_names_and_tags_and_the_licence_of_their_vendor(emoji_folders):
    reading = emoji.read(*emoji_folders)
    assert [(one.id, one.title, one.keywords, one.licence) for one in reading.items] == [
        ("emoji/fluent/1f985", "eagle", (), "MIT"),
        ("emoji/fluent/1f9a2", "swan", ("bird", "ugly"), "MIT"),
        ("emoji/google/1f9a2", "swan", ("bird", "ugly"), "Apache-2.0"),
        ("emoji/google/2600", "sun", (), "Apache-2.0"),
    ]
    assert [one.id for one in reading.items if not one.label] == ["emoji/google/2600"]


@pytest.fixture
def stamps(tmp_path):
    root = tmp_path / "stamps"
    for number, name in enumerate(["animals/hen", "animals/cock", "space/moon/moon"]):
        draw(root / f"{name}.png", 200 + number)
        (root / f"{name}.txt").write_text("A hen.\nfr.utf8=Une poule.\n", encoding="utf-8")
    (root / "animals/cock.txt").write_text("de.utf8=Ein Hahn\n", encoding="utf-8")
    (root / "animals/drawn.svg").write_text("<svg/>")
    (root / "animals/drawn.txt").write_text("Drawn.\n")
    return root


def test_stamps_have_the_english_caption(stamps, tmp_path, monkeypatch):
    monkeypatch.setattr(tuxpaint, "svg_renderer", lambda: None)
    reading = tuxpaint.read(stamps, tmp_path / "rendered")
    assert [(one.id, one.title) for one in reading.items] == [
        ("tuxpaint/animals/cock", ""),
        ("tuxpaint/animals/hen", "A hen."),
    ]
    assert reading.problems == ("tuxpaint: 1 SVG stamps skipped: rsvg-convert is missing (Debian: librsvg2-bin)",)


def program(folder, name, script):
    """Write an executable shell script."""
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return str(file)


def test_svg_stamps_are_rendered_once(stamps, tmp_path, monkeypatch):
    image = draw(tmp_path / "drawn.png", 7)
    renderer = program(
        tmp_path / "bin",
        "rsvg-convert",
        f'while [ "$1" != --output ]; do shift; done; cp {image} "$2"; echo >>{tmp_path}/runs',
    )
    monkeypatch.setattr(tuxpaint, "svg_renderer", lambda: renderer)
    for _ in range(2):
        reading = tuxpaint.read(stamps, tmp_path / "rendered")
    assert reading.items[1].image.read_bytes() == image.read_bytes()
    assert (tmp_path / "runs").read_text() == "\n"


def test_a_drawing_that_cannot_be_rendered_is_reported(stamps, tmp_path, monkeypatch):
    monkeypatch.setattr(tuxpaint, "svg_renderer", lambda: program(tmp_path / "bin", "rsvg-convert", "exit 1"))
    reading = tuxpaint.read(stamps, tmp_path / "rendered")
    assert len(reading.items) == 2
    assert "tuxpaint/animals/drawn.txt: cannot be rendered" in reading.problems[0]


# --- the data set ---


@pytest.fixture
def readings(clipart, emoji_folders, stamps, tmp_path, monkeypatch):
    monkeypatch.setattr(tuxpaint, "svg_renderer", lambda: None)
    return read_clipart(clipart), emoji.read(*emoji_folders), tuxpaint.read(stamps, tmp_path / "rendered")


def assemble(readings, folder):
    folder.mkdir(exist_ok=True)
    return illustrations.assemble(readings, folder, Fingerprints(folder.parent / "fingerprints.json"))


def test_the_data_set_is_a_manifest_with_the_files_of_the_packages(readings, tmp_path):
    report = assemble(readings, tmp_path / "out")
    manifest = read_manifest(tmp_path / "out/manifest.csv")
    assert manifest.digest == report.digest
    rows = {row.id: row for row in manifest.rows}
    assert set(rows) == {
        "emoji/fluent/1f985",
        "emoji/fluent/1f9a2",
        "emoji/google/1f9a2",
        "openclipart/animals/birds/cigno_01",
        "openclipart/animals/birds/cigno_02",
        "openclipart/people/clothing/hats/fez",
        "tuxpaint/animals/cock",
        "tuxpaint/animals/hen",
    }
    swan = rows["openclipart/animals/birds/cigno_01"]
    assert (swan.inputs["text"], swan.label, swan.source) == ("Cigno, white swan", "animals", "openclipart")
    assert swan.inputs["image"] == tmp_path / "out/images/openclipart/animals/birds/cigno_01.png"
    assert swan.inputs["image"].read_bytes() == (tmp_path / "clipart/png/animals/birds/cigno_01.png").read_bytes()
    assert "text" not in rows["openclipart/people/clothing/hats/fez"].inputs
    assert rows["emoji/fluent/1f9a2"].inputs["text"] == "swan, ugly"
    assert rows["emoji/fluent/1f9a2"].group == rows["emoji/google/1f9a2"].group


def test_pairs_have_items_without_a_label_and_captions_as_they_are(readings, tmp_path, monkeypatch):
    monkeypatch.setattr(illustrations, "split_of", lambda group, seed: "test" if "clothing" in group else "train")
    report = assemble(readings, tmp_path / "out")
    rows = {
        row.id: (row.inputs, row.split)
        for row, errors in open_table(tmp_path / "out/pairs.csv", labelled=False).rows(None)
        if not errors
    }
    assert report.pairs == len(rows)
    texts = {name: inputs["text"] for name, (inputs, _) in rows.items()}
    assert texts["openclipart/shapes/stars/star"] == "Star"  # no label
    assert texts["openclipart/tools/axe"] == "Axe, tool"  # filed under two labels
    swan = "openclipart/animals/birds/cigno_01"
    assert (texts[swan], texts[f"{swan}#2"]) == ("Cigno, white swan", "Cigno, bird, white_swan")
    assert rows[f"{swan}#2"][0]["image"] == rows[swan][0]["image"]
    assert {split for inputs, split in rows.values()} == {
        "train",
        "unseen",
    }  # the only item of the test split has no caption


def test_an_item_that_belongs_together_with_a_measured_one_is_in_no_pair(readings, tmp_path, monkeypatch, clipart):
    clip(clipart, "shapes/stars/cigno_99", 1, "Cigno", ["bird", "white_swan"])
    monkeypatch.setattr(illustrations, "split_of", lambda group, seed: "test")
    assemble((read_clipart(clipart), *readings[1:]), tmp_path / "out")
    ids = [row.id for row, _ in open_table(tmp_path / "out/pairs.csv", labelled=False).rows(None)]
    assert "openclipart/shapes/stars/star" in ids
    assert "openclipart/shapes/stars/cigno_99" not in ids
    assert not any("#" in name for name in ids)


def test_the_unseen_source_is_in_no_other_split(readings, tmp_path):
    report = assemble(readings, tmp_path / "out")
    assert {row.source for row in read_manifest(report.manifest).by_split("unseen")} == {"tuxpaint"}
    assert list(report.counts["tuxpaint"]) == ["unseen"]
    assert report.rows("unseen") == report.rows("unseen", "tuxpaint") == 2


def test_an_unseen_image_that_is_nearly_equal_to_a_known_one_is_named(readings, tmp_path, stamps, clipart):
    draw(stamps / "animals/hen.png", seed=1)  # the swan's
    report = assemble(readings, tmp_path / "out")
    assert report.familiar == ("tuxpaint/animals/hen",)
    assert report.rows("unseen") == 2
    assert {row.id: row.source for row in read_manifest(report.manifest).by_split("unseen")} == {
        "tuxpaint/animals/cock": "tuxpaint",
        "tuxpaint/animals/hen": "tuxpaint-familiar",
    }


def test_dropped_items_are_counted_by_rule(readings, tmp_path, clipart):
    (clipart / "png/people/clothing/hats/fez.png").write_bytes(b"words")
    report = assemble(readings, tmp_path / "out")
    assert report.dropped["openclipart"] == {CONTRADICTORY: 2, illustrations.UNUSABLE: 1}
    assert report.dropped["emoji"] == {}
    assert any("openclipart/people/clothing/hats/fez: undecodable" in problem for problem in report.problems)
    written = json.loads((tmp_path / "out/build.json").read_text())
    assert written["dropped"] == report.dropped
    assert written["data_digest"] == report.digest


def test_all_bad_items_are_reported(readings, tmp_path, clipart, stamps):
    for path in (clipart / "png/animals/birds/cigno_01.png", stamps / "animals/hen.png"):
        path.write_bytes(b"")
    report = assemble(readings, tmp_path / "out")
    assert len(report.problems) == 3  # with the skipped drawing
    assert report.rows("unseen") == 1


def test_the_order_of_sources_and_items_does_not_matter(readings, tmp_path):
    first = assemble(readings, tmp_path / "one")
    second = assemble([replace(one, items=one.items[::-1]) for one in readings[::-1]], tmp_path / "two")
    for name in ("manifest.csv", "build.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert first.digest == second.digest


def test_a_second_build_removes_only_files_of_the_first(readings, tmp_path):
    other = draw(tmp_path / "out/images/holiday/beach.png", 1)
    assemble(readings, tmp_path / "out")
    outdated = draw(tmp_path / "out/images/emoji/old/1.png", 1)
    assemble(readings, tmp_path / "out")
    assert other.exists()
    assert not outdated.parent.exists()


def test_a_group_is_in_one_split(tmp_path):
    items = [
        replace(
            item(f"{number:03}", title=f"thing {'abcdefghijklm'[number % 13]}"),
            image=draw(tmp_path / f"{number}.png", number),
        )
        for number in range(60)
    ]
    report = assemble([Reading(tuple(items))], tmp_path / "out")
    splits = {}
    for row in read_manifest(report.manifest).rows:
        splits.setdefault(row.group, set()).add(row.split)
    assert len(splits) == 13
    assert all(len(names) == 1 for names in splits.values())


# --- packages ---


def archive(folder, files):
    """Write a .tgz as npm does, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    with tarfile.open(folder / "p-1.0.0.tgz", "w:gz") as tar:
        for name in files:
            tar.add(folder / name, name)
    return folder / "p-1.0.0.tgz"


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """A package, and a function that counts the runs of a fake npm, which provides that package."""
    file = archive(tmp_path / "served", {"package/en/data.json": "[]", "package/more.txt": "x"})
    program(tmp_path / "bin", "npm", f"echo run >>{tmp_path}/runs; cp {file} .")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=":")
    monkeypatch.setattr(packages, "POLL_SECONDS", 0.01)
    package = Package("npm", "@scope/p", "1.0.0", packages.file_sha256(file), file.stat().st_size, ("package/en/",))
    return package, lambda: (tmp_path / "runs").read_text().count("run") if (tmp_path / "runs").exists() else 0


def test_a_package_is_downloaded_and_unpacked_once(npm, tmp_path):
    package, runs = npm
    sizes = []
    for _ in range(2):
        unpacked = obtain(package, tmp_path / "cache", sizes.append)
    assert runs() == 1
    assert (unpacked.folder / "package/en/data.json").read_text() == "[]"
    assert not (unpacked.folder / "package/more.txt").exists()  # not one of its members
    assert sizes[-1] == package.size
    assert unpacked.warning == ""


def test_an_interrupted_download_is_repeated(npm, tmp_path):
    package, runs = npm
    partial = tmp_path / "cache/archives/scope-p-1.0.0.tgz.partial"
    partial.mkdir(parents=True)
    (partial / "half.tgz").write_bytes(b"half")
    assert obtain(package, tmp_path / "cache").folder.exists()
    assert runs() == 1
    assert not partial.exists()


def test_an_interrupted_unpacking_is_repeated_without_a_download(npm, tmp_path, monkeypatch):
    package, runs = npm
    real_extract = tarfile.TarFile.extractall

    def interrupted(self, path, *rest, **options):
        real_extract(self, path, *rest, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(tarfile.TarFile, "extractall", interrupted)
    with pytest.raises(KeyboardInterrupt):
        obtain(package, tmp_path / "cache")
    assert list((tmp_path / "cache/unpacked").iterdir()) == []
    monkeypatch.setattr(tarfile.TarFile, "extractall", real_extract)
    assert (obtain(package, tmp_path / "cache").folder / "package/en/data.json").exists()
    assert runs() == 1


def test_an_archive_with_another_digest_is_rejected(npm, tmp_path):
    package, _ = npm
    with pytest.raises(SourceError, match=r"has sha256 [0-9a-f]{64}; allowed: 0000; delete the file"):
        obtain(replace(package, sha256="0000"), tmp_path / "cache")


def test_another_version_of_a_debian_package_is_a_warning(npm, tmp_path):
    file = tmp_path / "served/p-1.0.0.tgz"
    program(tmp_path / "bin", "apt-get", f"cp {file} p_2.0_all.deb")
    program(tmp_path / "bin", "dpkg-deb", f'case "$1" in --field) echo 2.0;; *) gzip -dc {file};; esac')
    unpacked = obtain(Package("debian", "p", "1.0", "0000", 1, ("package/",)), tmp_path / "cache")
    assert unpacked.version == "2.0"
    assert "p: version 2.0 (known: 1.0)" in unpacked.warning
    assert (unpacked.folder / "package/more.txt").exists()


def test_the_error_of_a_failed_download_has_advice(npm, tmp_path):
    program(tmp_path / "bin", "apt-get", "echo 'E: Unable to locate package p'; exit 100")
    with pytest.raises(SourceError, match=r"Unable to locate package p.*run `apt-get update` first"):
        obtain(Package("debian", "p", "1.0", "0000", 1), tmp_path / "cache")
    assert list((tmp_path / "cache/archives").iterdir()) == []


def test_a_missing_program_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match="the program npm is missing"):
        obtain(Package("npm", "p", "1.0", "0000", 1), tmp_path / "cache")


def test_every_known_package_is_pinned():
    assert {package.name for package in packages.PACKAGES} >= {vendor.package for vendor in emoji.VENDORS}
    assert all(len(package.sha256) == 64 and package.version for package in packages.PACKAGES)
