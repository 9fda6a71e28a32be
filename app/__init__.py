"""The HTTP service: knows FastAPI and the door of `model`, and has never heard of a tensor."""
