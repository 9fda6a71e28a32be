"""A clock for tests."""


class Clock:
    """Put forward by hand; in seconds."""

    def __init__(self, now=0.0):
        self.now = now

    def __call__(self):
        return self.now
