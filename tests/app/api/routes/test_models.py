async def test_the_list_has_the_default_and_the_labels_and_limits_of_every_model(serving, make):
    async with serving({"one": make("one"), "two": make("two")}) as client:
        body = (await client.get("/v1/models")).json()
    assert body["default"] == "one"
    assert [model["name"] for model in body["models"]] == ["one", "two"]
    model = body["models"][0]
    assert model["labels"] == ["red", "green", "blue"]
    image, text = model["inputs"]
    assert (model["kind"], model["tasks"]) == ("network", ["classify", "embed"])
    assert model["embeddings"] == {"dimensions": 3, "aligned": False, "spaces": {"classifier": 3}, "matches": []}
    assert [(spec["name"], spec["textual"]) for spec in (image, text)] == [("image", False), ("text", True)]
    assert "image/png" in image["media_types"]
    assert image["limits"]["max_pixels"] == 50_000_000
    assert image["limits"]["max_bytes"] == 10 * 1024 * 1024
    assert text["limits"] == {"max_characters": 20_000, "max_tokens": 8, "max_bytes": 256 * 1024}


async def test_models_of_every_target_are_listed_with_their_labels_and_thresholds(serving, make):
    targets = ("single-label", "multi-label", "regression")
    async with serving({target: make(target, task=target) for target in targets}) as client:
        models = {model["name"]: model for model in (await client.get("/v1/models")).json()["models"]}
        detail = (await client.get("/v1/models/multi-label")).json()
    assert [models[target]["target"] for target in targets] == list(targets)
    assert [models[target]["task"] for target in targets] == list(targets)  # the former name of target
    assert models["regression"]["labels"] == []
    assert models["multi-label"]["thresholds"] == detail["thresholds"] == {"red": 0.8, "green": 0.5, "blue": 0.6}
    assert [target for target in targets if "thresholds" in models[target]] == ["multi-label"]


async def test_one_model_comes_with_its_card_and_report(client):
    body = (await client.get("/v1/models/toy")).json()
    assert (body["card"], body["report"], body["runtime"]) == ("# Toy", {"accuracy": 1.0}, "arithmetic")


async def test_an_unknown_model_is_answered_with_the_known_ones(client):
    answer = await client.get("/v1/models/nope")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_model")
    assert answer.json()["detail"] == 'model: "nope"; allowed: toy'
