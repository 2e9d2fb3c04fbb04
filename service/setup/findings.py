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
    """A table on a terminal and the mending commands below it; elsewhere a line of JSON for each finding."""
    if not sys.stdout.isatty():
        for finding in findings:
            print(msgspec.json.encode(finding).decode())
        return
    table = Table("check", "", "finding")
    for finding in findings:
        table.add_row(finding.check, finding.status, Text(finding.message))
    Console(highlight=False).print(table)
    for finding in findings:  # outside of the table, which would wrap what is to be pasted
        if finding.mend:
            print(f"\n# {finding.check}: {finding.message}\n{finding.mend}")
