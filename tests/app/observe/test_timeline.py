from polymodal.app.observe.timeline import Timeline
from polymodal.model import encoding


def test_the_longest_of_a_stage_over_all_items_counts():
    timeline = Timeline()
    for item, seconds in enumerate((0.1, 0.3, 0.2)):
        timeline.note("decode", 5.0 + item, seconds, item)
    timeline.note(encoding("image"), 9.0, 0.0)
    assert timeline.longest() == {"decode": 0.3, "encode_image": 0.0}
    assert [step.item for step in timeline.steps] == [0, 1, 2, None]
