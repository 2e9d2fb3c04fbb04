"""What SQL, or a text that is cast to a time, says that means something else at every run."""

import re
from typing import Final

# What SQL, or a text that is cast to a time, says that means something else at every run.
CLOCK: Final = re.compile(
    r"(?<![^\W\d_])"
    r"(?:now|today|tomorrow|yesterday|current_(?:date|time|timestamp)|localtime(?:stamp)?|tablesample)"
    r"(?![^\W\d_])",
    re.IGNORECASE,
)
