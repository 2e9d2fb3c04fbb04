"""Invisible characters, for the regular expressions of Python and of Postgres."""

from typing import Final

ASCII_SPACES: Final = "\t\n\v\f\r "
WIDE_SPACES: Final = (
    "\u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
SPACES: Final = ASCII_SPACES + WIDE_SPACES
"""Characters with Unicode's property White_Space."""
IGNORABLE: Final = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Characters with Unicode's property Default_Ignorable_Code_Point, for use in a bracket expression."""
UNSEEN_AT_ENDS: Final = SPACES + "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
"""Characters to trim. Marks that change the look of the character before them are not included."""
