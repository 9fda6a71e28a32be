"""Texts: limits, decoding, tokenising (input.py) and encoders (encoders.py)."""
