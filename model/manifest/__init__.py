"""The manifest: a table of (image, text, label), the only thing that training reads.

One row is one example. `label` is required, and `image` or `text` or both; the other columns are optional:

    image    path of a picture below the manifest's folder, or below a folder that its reader allows; may be empty
    text     the words; may be empty (but not both)
    label    the answer: one label; several with | between them, or none (multi-label); or a number (regression)
    id       unique name of the row; default: its number, counted from 1
    group    rows of one group are never separated by a split; default: the id
    split    train, validation, val, valid, dev, test, unseen (a source never trained or tuned on, only reported); or no row has one
    source   where the example comes from; results are reported per source
    licence  under which terms it may be used

Three forms hold the same table:

* a file: `.csv`, `.tsv`, `.tab` or `.txt` (first line names the columns; separators and encodings of spreadsheets are recognised),
  `.jsonl` or `.ndjson` (an object a line) or `.parquet` (needs pyarrow);
* a folder that holds one of `manifest.csv`, `manifest.jsonl`, `manifest.parquet` and so on;
* a folder in the "imagefolder" convention (https://huggingface.co/docs/datasets/image_dataset#imagefolder):
  `metadata.csv`, `.jsonl` or `.parquet` with `file_name` (our image), `text` or `caption` (our text) and perhaps
  `label`, in the folder itself or in one folder per split (`forms.FOLDER_SPLITS` has their names).
  Without a label column, a picture's label is the name of the folder that it lies in; without metadata, every picture
  below the folder is a row.

Columns of other names are ignored with a warning. Names (labels, ids, groups, …) are read as they look, see `model.spelling`.
Whatever is wrong is reported at once, as `ManifestError.problems`; what is left out, or read in another way than it is written, as
warnings.
"""

from model.manifest.digest import data_digest
from model.manifest.forms import COLUMNS, SPLITS
from model.manifest.reading import (
    Manifest,
    ManifestError,
    Table,
    open_table,
    read_manifest,
    read_parts,
    read_rows,
    read_splits,
    task_name,
    write_manifest,
)
from model.manifest.result import CheckResult
from model.manifest.rows import Row
from model.manifest.spreadsheets import csv_line

__all__ = [
    "COLUMNS",
    "SPLITS",
    "CheckResult",
    "Manifest",
    "ManifestError",
    "Row",
    "Table",
    "csv_line",
    "data_digest",
    "open_table",
    "read_manifest",
    "read_parts",
    "read_rows",
    "read_splits",
    "task_name",
    "write_manifest",
]
