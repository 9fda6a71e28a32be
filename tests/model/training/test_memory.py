"""A data set may be larger than memory: the memory that a training uses does not grow with the images."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PROJECT = Path(__file__).parents[3]
SIDE = 128  # px, as prepared
DECODED_SIDE = 256  # px
SLACK = 64 * 2**20  # bytes; memory kept by allocators varies by tens of MiB from run to run

# Prints the peak memory in bytes; Linux counts it in KiB. It includes the pages of the mapped file.
EPOCH = """
import resource, sys
from pathlib import Path
from polymodal.model.modalities.image.input import ImageInput
from polymodal.model.training.examples import prepare_examples
from polymodal.model.training.fit import Batches
from polymodal.model.manifest import read_manifest
from polymodal.model.training.presets import TrainingConfig

manifest = read_manifest(Path(sys.argv[1]))
inputs = {"image": ImageInput(side=int(sys.argv[2]))}
examples = prepare_examples(manifest, inputs, "inputs", Path(sys.argv[1]).with_suffix(".examples"), workers=2)
rows = sum(len(batch["targets"]) for batch in Batches(examples, TrainingConfig(batch_size=32, augment=()), workers=2).of(0))
assert rows == len(manifest.rows)
print(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_of_an_epoch(folder, rows):
    """Peak memory, in bytes, of a process that prepares this number of rows and reads all of them once."""
    lines = ["image,label,split", *(f"{number % 20}.png,{'ab'[number % 2]},train" for number in range(rows))]
    manifest = folder / f"{rows}.csv"
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [sys.executable, "-c", EPOCH, str(manifest), str(SIDE)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count memory in other units")
def test_ten_times_the_rows_need_only_the_memory_of_the_mapped_file(tmp_path):
    chance = np.random.default_rng(0)
    for number in range(20):
        noise = chance.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((DECODED_SIDE, DECODED_SIDE)).save(tmp_path / f"{number}.png")
    small, large = peak_of_an_epoch(tmp_path, 200), peak_of_an_epoch(tmp_path, 2000)
    mapped, decoded = (1800 * side**2 * 3 for side in (SIDE, DECODED_SIDE))
    assert large - small < mapped + SLACK
    assert mapped + SLACK < min(2 * mapped, decoded)  # else prepared or decoded images in memory could not be detected
