"""Tokens, the clients that may ask for them, and the keys that sign them."""

import sys
from getpass import getpass

import click

from service.cli.group import Command, Group, SeveralValues
from service.cli.output import csv_option
from service.errors import Stop


@click.command(cls=Command)
@click.option("--scope", cls=SeveralValues, help="Scopes. [default: api/backend_access]")
@click.option("--subject", default="cli", show_default=True, help="Who the token is for.")
@click.option("--ttl", type=int, help="Seconds that the token is valid. [default: an hour]")
def token(scope: tuple[str, ...], subject: str, ttl: int | None) -> None:
    """Print a bearer token for local work."""
    from service.auth.clients import parse_scopes
    from service.auth.issuer import TTL_LIMIT_S, TTL_S, Issuer, KeyFile
    from service.auth.tokens import BACKEND, SUBJECT_IS, is_own_subject
    from service.cli.opened import started

    settings = started()
    ttl = TTL_S if ttl is None else ttl
    if not 0 < ttl <= TTL_LIMIT_S:
        raise Stop(f"--ttl must be 1 to {TTL_LIMIT_S} seconds", exit_code=2)
    if not is_own_subject(subject):
        raise Stop(f"--subject must be {SUBJECT_IS}, and without |", exit_code=2)
    scopes = parse_scopes(" ".join(scope or [BACKEND]), "--scope")
    issuer = Issuer(settings.public_url, KeyFile(settings.database.data_dir))
    print(issuer.sign(subject, scopes, ttl))


@click.group(cls=Group)
def client() -> None:
    """Clients that may ask for tokens."""


@client.command("add")
@click.argument("client_id", metavar="ID")
@click.option("--scope", cls=SeveralValues, required=True, help="Scopes that it may ask for.")
@click.option("--chosen", is_flag=True, help="Read the secret from standard input.")
def add_client(client_id: str, scope: tuple[str, ...], *, chosen: bool) -> None:
    """Register a client and print its secret, which is not stored."""
    from service.auth import clients
    from service.cli.opened import with_database

    scopes = clients.parse_scopes(" ".join(scope), "--scope")
    secret = _chosen_secret() if chosen else None
    made = with_database(lambda db: clients.add(db, client_id, scopes, chosen=secret, actor="cli"))
    if not chosen:
        print(made)


def _chosen_secret() -> str:
    from service.auth.clients import CHOSEN_LENGTH

    secret = getpass("Secret: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    if len(secret) < CHOSEN_LENGTH:
        raise Stop(f"a chosen secret needs at least {CHOSEN_LENGTH} characters", exit_code=2)
    return secret


@client.command("list")
@csv_option
def list_clients(*, as_csv: bool) -> None:
    """List the clients of the database."""
    from service.auth import clients
    from service.cli.opened import with_database
    from service.cli.output import lines, show

    found = lines(with_database(clients.list_all))
    show(found, "id", "scopes", "chosen", "created_at", "revoked_at", as_csv=as_csv)


@client.command("renew")
@click.argument("client_id", metavar="ID")
@click.option("--chosen", is_flag=True, help="Read the secret from standard input.")
def renew_client(client_id: str, *, chosen: bool) -> None:
    """Replace a client's secret and print the new one; the old one no longer works."""
    from service.auth import clients
    from service.cli.opened import with_database

    secret = _chosen_secret() if chosen else None
    made = with_database(lambda db: clients.renew(db, client_id, chosen=secret, actor="cli"))
    if not chosen:
        print(made)


@client.command("revoke")
@click.argument("client_id", metavar="ID")
def revoke_client(client_id: str) -> None:
    """Revoke a client: it gets no more tokens."""
    from service.auth import clients
    from service.auth.issuer import TTL_S
    from service.cli.opened import with_database

    with_database(lambda db: clients.revoke(db, client_id, actor="cli"))
    print(f"{client_id} gets no more tokens; those it has hold for up to {TTL_S} seconds")


@click.group(cls=Group)
def key() -> None:
    """Signing keys."""


@key.command("rotate")
@click.option("--overlap", type=int, help="Seconds that the old key verifies. [default: a day]")
def rotate_key(overlap: int | None) -> None:
    """Sign with a new key from now on."""
    from service.auth.issuer import OVERLAP_S, KeyFile
    from service.cli.opened import started

    overlap = OVERLAP_S if overlap is None else overlap
    if overlap < 0:
        raise Stop("--overlap must not be negative", exit_code=2)
    fresh = KeyFile(started().database.data_dir).rotate(overlap)
    print(f"{fresh.kid} signs from now on; older keys verify for {overlap} seconds at most")
