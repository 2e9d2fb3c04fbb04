"""`python -m tally_client metrics`: write a module with the metrics of a service and their types."""

import argparse
import io
import os
import sys

from .client import Client
from .errors import TallyError
from .writing import write_python, write_typescript


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tally_client", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    metrics = commands.add_parser("metrics", help="write a module with a service's metrics and their types")
    metrics.add_argument("--url", default="http://127.0.0.1:8000", help="address of the service")
    metrics.add_argument("--typescript", action="store_true", help="for TypeScript instead of Python")
    metrics.add_argument(
        "--package", default="tally-client", help="what the TypeScript module imports the client from"
    )
    given = parser.parse_args(arguments)
    try:
        with Client(given.url, token=os.environ.get("TALLY_TOKEN")) as client:
            document = client.request("GET", "/openapi.json", params={"metrics": "true"}).json()
    except (TallyError, ValueError) as error:
        sys.stderr.write(f"{error}\nA token is read from the environment variable TALLY_TOKEN.\n")
        return 1
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # names of columns may be any text
    if given.typescript:
        sys.stdout.write(write_typescript(document, client.address, given.package))
    else:
        sys.stdout.write(write_python(document, client.address))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
