"""Plain FastAPI: one uvicorn worker per core, and a synchronous endpoint, which FastAPI runs in its thread pool."""

from typing import Annotated, Any

from fastapi import FastAPI, File, Form, UploadFile

from benchmarks.peers.classifier import answers, load, prepare

app = FastAPI()
predictor = load()


@app.post("/predict")
def predict(image: Annotated[UploadFile, File()], text: Annotated[str, Form()]) -> dict[str, Any]:
    """Classify the fields of a form."""
    return answers(predictor, [prepare(predictor, image.file.read(), text)])[0]
