"""Failures of a whole batch."""


class BatchFailed(Exception):
    """A worker could not compute a batch; it has logged the reason, and is healthy."""


class WorkerLost(Exception):
    """A worker was lost during a batch: any of its items may be the cause, or none."""


class NotStarted(Exception):
    """A worker was lost before it began a batch, so that none of its items is the cause."""
