"""Blank texts, which have no visible character and count as missing in serving and in training."""

import re
from typing import Final

IGNORABLE: Final = (
    r"\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    r"\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Default_Ignorable_Code_Point of Unicode 16 (DerivedCoreProperties.txt), for a character class: zero-width and joining characters,
marks of direction, variation selectors, Hangul fillers, tags, the soft hyphen. Written out because Python's tables differ by
version, and a bundle must read the same texts everywhere."""

_VISIBLE: Final = re.compile(
    "[^"
    r"\s"  # White_Space
    r"\0-\x1f\x7f-\x9f"  # Cc, controls
    + IGNORABLE
    # The rest of Cf, format characters, without those that show a sign (Prepended_Concatenation_Mark, such as U+0600).
    + r"\ufff9-\ufffb\U00013430-\U00013440"
    r"\ue000-\uf8ff\U000f0000-\U0010ffff"  # Co, private use, whose look only the sender's font defines
    r"\ufdd0-\ufdef\ufffe\uffff"
    + "".join(f"{chr(0x1_0000 * plane - 2)}{chr(0x1_0000 * plane - 1)}" for plane in range(2, 16))
    # Blank by name, not by property: Braille cell, placeholder of an attachment, null notehead, blanks and fillers.
    + r"\u2800\ufffc\U0001d159\U00013441\U00013442\U00016fe4"
    "]"
)


def is_blank(text: str) -> bool:
    """Return whether a text has no visible character.

    Unassigned code points and lone marks count as visible: the former may be newer than this list, the latter have a shape.
    """
    return _VISIBLE.search(text) is None
