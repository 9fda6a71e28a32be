"""A clock for tests."""


class Clock:
    """Return `now`, in seconds, which tests set."""

    def __init__(self, now=0.0):
        self.now = now

    def __call__(self):
        return self.now
