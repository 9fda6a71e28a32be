async def test_the_list_names_the_default_and_every_models_labels_and_limits(serving, make):
    async with serving({"one": make("one"), "two": make("two")}) as client:
        body = (await client.get("/v1/models")).json()
    assert body["default"] == "one"
    assert [model["name"] for model in body["models"]] == ["one", "two"]
    model = body["models"][0]
    assert model["labels"] == ["red", "green", "blue"]
    image, text = model["inputs"]
    assert (model["kind"], model["tasks"]) == ("network", ["classify", "embed"])
    assert model["embeddings"] == {"dimensions": 3, "aligned": False}
    assert [(spec["name"], spec["textual"]) for spec in (image, text)] == [("image", False), ("text", True)]
    assert "image/png" in image["media_types"]
    assert image["limits"]["max_pixels"] == 50_000_000
    assert image["limits"]["max_bytes"] == 10 * 1024 * 1024
    assert text["limits"] == {"max_characters": 20_000, "max_tokens": 8, "max_bytes": 256 * 1024}


async def test_models_of_every_target_are_listed_with_what_they_have(serving, make):
    targets = ("single-label", "multi-label", "regression")
    async with serving({target: make(target, task=target) for target in targets}) as client:
        found = {model["name"]: model for model in (await client.get("/v1/models")).json()["models"]}
        detail = (await client.get("/v1/models/multi-label")).json()
    assert [found[target]["target"] for target in targets] == list(targets)
    assert [found[target]["task"] for target in targets] == list(targets)  # as it was called before
    assert found["regression"]["labels"] == []
    assert found["multi-label"]["thresholds"] == detail["thresholds"] == {"red": 0.8, "green": 0.5, "blue": 0.6}
    assert [target for target in targets if "thresholds" in found[target]] == ["multi-label"]


async def test_one_model_comes_with_its_card_and_report(client):
    body = (await client.get("/v1/models/toy")).json()
    assert (body["card"], body["report"], body["runtime"]) == ("# Toy", {"accuracy": 1.0}, "arithmetic")


async def test_an_unknown_model_is_told_what_there_is(client):
    answer = await client.get("/v1/models/nope")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_model")
    assert answer.json()["detail"] == 'model: "nope"; allowed: toy'
