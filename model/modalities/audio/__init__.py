"""Sounds: formats (formats.py), decoding (decoding.py), log-mel windows (spectrum.py, input.py) and encoders (encoders.py)."""
