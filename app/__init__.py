"""The HTTP service, on top of the public API of `model`; it handles no tensors."""
