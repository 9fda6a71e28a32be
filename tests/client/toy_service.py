"""Responses of a service whose model `toy` answers every text and every image with red."""

import json

import httpx

ANSWER = {"model": "toy", "digest": "ab", "modalities": ["text"], "labels": [{"label": "red", "score": 0.5}]}


def problem(status, code, detail="why", **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, json={"status": status, "code": code, "detail": detail}, headers=headers)


def answering(request):
    """Return a response that classifies every item with a text or an image, and a problem for the others."""
    document = json.loads(request.content)
    if "items" not in document:
        return httpx.Response(200, json=ANSWER)
    items = [
        {"index": index, "status": 200, "classification": ANSWER}
        if {"text", "image"} & set(item)
        else {"index": index, "status": 422, "problem": {"status": 422, "code": "nothing_given", "detail": "nothing"}}
        for index, item in enumerate(document["items"])
    ]
    return httpx.Response(200, json={"items": items})
