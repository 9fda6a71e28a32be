"""Paths of the probes."""

from typing import Final

LIVEZ: Final = "/livez"
STARTUPZ: Final = "/startupz"
READYZ: Final = "/readyz"
HEALTHZ: Final = "/healthz"
"""The same as READYZ."""
PROBES: Final = (LIVEZ, STARTUPZ, READYZ, HEALTHZ)
