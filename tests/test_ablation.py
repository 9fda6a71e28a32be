"""`make ablation`: rows without a result are trained, and the table in a document is replaced."""

import json
import re
import subprocess
import sys
from pathlib import Path

from polymodal.model.fusion import FUSIONS

PROJECT = Path(__file__).parents[1]
DOCUMENT = "before\n\n<!-- ablation: made by make ablation -->\n\nold\n\n<!-- end of ablation -->\n\nafter\n"


def ablation(*arguments: object) -> None:
    """Run the script as the Makefile does."""
    command = [sys.executable, "scripts/ablation.py", *map(str, arguments)]
    subprocess.run(command, cwd=PROJECT, check=True, env={"OMP_NUM_THREADS": "1", "PATH": ""}, timeout=300)


def test_a_row_of_the_table_has_mean_and_deviation_of_its_seeds(tmp_path):
    for seed, score in enumerate((0.5, 0.6, 0.7)):
        scores = {"image+text": score, "image": 0.25}
        (tmp_path / f"fusion-sum-{seed}.json").write_text(json.dumps(scores), encoding="utf-8")
    document = tmp_path / "document.md"
    document.write_text(DOCUMENT, encoding="utf-8")
    ablation("nowhere", "--out", tmp_path, "--only", "nothing", "--table", document)
    text = document.read_text(encoding="utf-8")
    assert "| validation accuracy | image + text | image | text | seeds |" in text
    assert "| fusion sum | 0.600 ± 0.100 | 0.250 ± 0.000 | – | 3 |" in text
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text


def test_a_requested_row_is_trained_once(manifest_folder, tmp_path):
    arguments = (manifest_folder, "--out", tmp_path, "--seeds", 1, "--only", "preset cnn-rnn")
    ablation(*arguments)
    (file,) = tmp_path.glob("*.json")
    assert file.name == "preset-cnn-rnn-0.json"
    scores = json.loads(file.read_bytes())
    assert set(scores) == {"image+text", "image", "text"}
    assert all(0.5 < score <= 1.0 for score in scores.values()), scores
    before = file.stat().st_mtime_ns
    ablation(*arguments)
    assert file.stat().st_mtime_ns == before


def test_every_line_of_the_documented_table_has_three_seeds():
    table = re.search(r"<!-- ablation.*?-->(.*?)<!-- end", (PROJECT / "docs/training.md").read_text("utf-8"), re.DOTALL)
    assert table
    lines = [line for line in table[1].splitlines() if line.startswith("| ") and "seeds" not in line]
    assert {f"fusion {fusion}" for fusion in FUSIONS} <= {line.split(" | ")[0].removeprefix("| ") for line in lines}
    assert all(line.endswith("| 3 |") for line in lines)
