"""Plain FastAPI: a synchronous endpoint, so in FastAPI's thread pool; as many uvicorn workers as there are cores."""

from typing import Annotated, Any

from fastapi import FastAPI, File, Form, UploadFile

from benchmarks.peers.classifier import answers, load, prepare

app = FastAPI()
predictor = load()


@app.post("/predict")
def predict(image: Annotated[UploadFile, File()], text: Annotated[str, Form()]) -> dict[str, Any]:
    """One item after the other."""
    return answers(predictor, [prepare(predictor, image.file.read(), text)])[0]
