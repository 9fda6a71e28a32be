"""Texts: limits, decoding, tokenising (input.py) and their networks (encoders.py)."""
