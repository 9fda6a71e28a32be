"""Manifests: tables of inputs and labels, the only data that training reads.

One row is one example. `label` is required, and a column for at least one modality, by its name in the table MODALITIES; cells of
these may be empty, but not all of a row. The other columns are optional:

    image    and other modalities of files: path of a file below the manifest's folder, or below a folder that its reader allows
    text     and other modalities of text: the words
    label    the target: one label; any number of labels separated by | (multi-label); or a number (regression)
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
  `metadata.csv`, `.jsonl` or `.parquet` with `file_name` (an image, by its suffix), `text` or `caption` (our text) and perhaps
  `label`, in the folder itself or in one folder per split (`forms.FOLDER_SPLITS` has their names).
  Without a label column, a file's label is the name of the folder that it is in; without metadata, every file below the folder
  that has a suffix of a modality is a row.

Columns of other names are ignored with a warning. Names (labels, ids, groups, …) are read as they look, see `model.spelling`.
All errors are reported at once, as `ManifestError.problems`; rows and cells that are left out or changed, as warnings.
"""

from polymodal.model.manifest.digest import data_digest
from polymodal.model.manifest.forms import SPLITS, column_names
from polymodal.model.manifest.reading import (
    Manifest,
    ManifestError,
    Table,
    open_table,
    read_inputs,
    read_manifest,
    read_rows,
    read_splits,
    write_manifest,
)
from polymodal.model.manifest.result import CheckResult
from polymodal.model.manifest.rows import Row
from polymodal.model.manifest.spreadsheets import csv_line

__all__ = [
    "SPLITS",
    "CheckResult",
    "Manifest",
    "ManifestError",
    "Row",
    "Table",
    "column_names",
    "csv_line",
    "data_digest",
    "open_table",
    "read_inputs",
    "read_manifest",
    "read_rows",
    "read_splits",
    "write_manifest",
]
