"""Words that read the clock: they make SQL, or a text that is cast to a time, mean something new each run."""

import re
from typing import Final

# A text that is cast to a time may contain these words too.
CLOCK: Final = re.compile(
    r"(?<![^\W\d_])"
    r"(?:now|today|tomorrow|yesterday|current_(?:date|time|timestamp)|localtime(?:stamp)?|tablesample)"
    r"(?![^\W\d_])",
    re.IGNORECASE,
)
