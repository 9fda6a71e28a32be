"""The commands of `polymodal`, a file for each kind; `app.cli` puts them together."""
