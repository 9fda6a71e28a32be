"""Pictures: accepted formats, limits, decoding, preprocessing (input.py) and their networks (encoders.py)."""
