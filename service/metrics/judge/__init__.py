"""May this SQL run: `parse` reads one statement within limits, `judge` allows it or says what it may not."""

from service.metrics.judge.lists import FUNCTIONS, NODES, RESERVED
from service.metrics.judge.reading import Verdict, judge, parse

__all__ = ["FUNCTIONS", "NODES", "RESERVED", "Verdict", "judge", "parse"]
