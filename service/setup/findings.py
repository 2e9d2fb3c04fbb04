"""What `doctor` finds: one entry for each check, with the command that mends it."""

import sys
from typing import Final, Literal

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table
from rich.text import Text

UNREACHABLE: Final = 1
SOMEBODY_MUST_ACT: Final = 3


class Finding(Struct, frozen=True):
    """`note` is advice, `act` needs somebody, `unreachable` leaves other checks undone."""

    check: str
    status: Literal["ok", "note", "act", "unreachable"]
    message: str
    mend: str = ""


def exit_status(findings: list[Finding]) -> int:
    found = {finding.status for finding in findings}
    if "unreachable" in found:
        return UNREACHABLE
    return SOMEBODY_MUST_ACT if "act" in found else 0


def show(findings: list[Finding]) -> None:
    """A table on a terminal, a line of JSON for each finding elsewhere."""
    if not sys.stdout.isatty():
        for finding in findings:
            print(msgspec.json.encode(finding).decode())
        return
    console = Console(highlight=False)
    table = Table("check", "", "finding, and what mends it", show_lines=True)
    for finding in findings:
        text = Text(finding.message)
        if finding.mend:
            text.append(f"\n{finding.mend}", style="bold")
        table.add_row(finding.check, finding.status, text)
    console.print(table)
