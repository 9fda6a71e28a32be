"""The commands of `polymodal`, a module for each group; `app.cli` combines them."""
