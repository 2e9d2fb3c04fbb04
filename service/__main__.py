"""`tally` and `python -m service`; guarded, since the server's workers import it again."""

import sys


def main() -> None:
    """Run a command. A Ctrl-C while it is still being imported ends it as quietly as later."""
    try:
        from service.cli import main as run  # noqa: PLC0415 (that is what may be interrupted)
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
