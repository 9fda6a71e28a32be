"""Images: accepted formats, limits, decoding, preprocessing (input.py) and encoders (encoders.py)."""
