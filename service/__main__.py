"""`python -m service`; guarded, since the server's workers import it again."""

from service.cli import main

if __name__ == "__main__":
    main()
