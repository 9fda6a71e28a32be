"""The folder that `polymodal evaluate --out` writes; imported only then, because it needs matplotlib and Jinja2."""

import json
from pathlib import Path
from typing import Final

from matplotlib.figure import Figure

from polymodal.model.evaluation import plots
from polymodal.model.evaluation.answers import Evaluation
from polymodal.model.evaluation.page import write_page

METRICS: Final = "metrics.json"
PAGE: Final = "index.html"


def write_folder(evaluation: Evaluation, out: Path) -> None:
    """Write metrics.json, each figure of each set of modalities as PNG and SVG, and index.html; other files of `out` are kept."""
    target = evaluation.description.target
    figures: dict[str, Figure] = {}
    for key, answers in evaluation.answers.items():
        targets = evaluation.targets[answers.rows]
        drawn = plots.answer_figures(target, evaluation.target, answers.scores, targets)
        figures |= {f"{kind}-{key}": figure for kind, figure in drawn.items()}
    plots.save(figures, out)
    metrics = json.dumps(evaluation.as_json(), indent=1, ensure_ascii=False) + "\n"
    (out / METRICS).write_text(metrics, encoding="utf-8")
    images = {name: (out / f"{name}.svg").read_bytes() for name in figures}
    (out / PAGE).write_text(write_page(evaluation, images), encoding="utf-8")
