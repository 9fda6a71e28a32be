"""Tones are near duplicates when they are equal."""


def fingerprint(array):
    return array.tobytes()


def first_near_duplicates(known, others):
    for other in others:
        yield known.index(other) if other in known else None
