"""May this SQL run: `parse` reads one statement within limits, `judge` allows it or says what it may not."""

from service.metrics.judge.foreign import foreign
from service.metrics.judge.lexer import Unread
from service.metrics.judge.lists import FUNCTIONS, NODES, RESERVED
from service.metrics.judge.reading import Verdict, is_lossy, judge, parse

__all__ = ["FUNCTIONS", "NODES", "RESERVED", "Unread", "Verdict", "foreign", "is_lossy", "judge", "parse"]
