"""The folder that `polymodal evaluate --out` writes; imported only then, as the figures need matplotlib."""

import json
from pathlib import Path
from typing import Final

from model.evaluation import plots
from model.evaluation.answers import Evaluation
from model.evaluation.page import write_page

METRICS: Final = "metrics.json"
PAGE: Final = "index.html"


def write_folder(evaluation: Evaluation, out: Path) -> None:
    """Write metrics.json, each figure of each set of modalities as PNG and SVG, and index.html; the rest of `out` stays."""
    figures = {
        f"{kind}-{key}": figure
        for key, each in evaluation.answers.items()
        for kind, figure in plots.answer_figures(evaluation.task, each.scores, evaluation.targets[each.rows]).items()
    }
    plots.save(figures, out)
    told = json.dumps(evaluation.as_json(), indent=1, ensure_ascii=False) + "\n"
    (out / METRICS).write_text(told, encoding="utf-8")
    drawn = {name: (out / f"{name}.svg").read_bytes() for name in figures}
    (out / PAGE).write_text(write_page(evaluation, drawn), encoding="utf-8")
