"""The regression target: a number with an interval."""
