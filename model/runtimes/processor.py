"""The processor that executes graphs: its name and its instructions for products of 8-bit numbers."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

CPUINFO: Final = Path("/proc/cpuinfo")
VNNI: Final[Mapping[str, str]] = {"avx512_vnni": "AVX-512 VNNI", "avx_vnni": "AVX-VNNI"}
"""Flags of x86-64 for instructions that add four products of 8-bit numbers to a sum of 32 bits."""
DOT_PRODUCTS: Final[Mapping[str, str]] = {**VNNI, "i8mm": "i8mm", "asimddp": "dot products"}
"""The same for x86-64 and arm64."""


@dataclass(frozen=True, slots=True)
class Processor:
    """Name and flags from /proc/cpuinfo; outside of Linux only the machine's architecture is known."""

    name: str
    flags: frozenset[str]

    @property
    def dot_products(self) -> tuple[str, ...]:
        """Names of the instructions that add four products of 8-bit numbers to 32 bits."""
        return tuple(name for flag, name in DOT_PRODUCTS.items() if flag in self.flags)

    @property
    def has_vnni(self) -> bool:
        """Whether products of unsigned and signed 8-bit numbers are added without overflow on x86-64; False where unknown."""
        return not self.flags.isdisjoint(VNNI)


@cache
def processor(cpuinfo: Path = CPUINFO) -> Processor:
    """Return this machine's processor. The file is read once."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    facts = {name.strip(): value.strip() for name, colon, value in (line.partition(":") for line in lines) if colon}
    flags = facts.get("flags", facts.get("Features", ""))
    return Processor(facts.get("model name", platform.machine()), frozenset(flags.split()))
