"""Who may ask for tokens: secrets, scopes, and what failing costs."""

from hashlib import sha256

import pytest

from service.auth.clients import (
    FAILURES_A_MINUTE,
    Client,
    Clients,
    hash_chosen,
    narrow,
    new_secret,
    parse_clients,
)
from service.errors import ClientFailures, ClientRefused, ScopeRefused, Stop

SECRET = "Pq3vB9xW0kT7mLr2ZsY8cN5dHf1gJ4aUeXoI6tKbVwQ"  # of the shape that `new_secret` makes
HASH = sha256(SECRET.encode()).hexdigest()
CHOSEN = hash_chosen("correct horse, battery: staple")
MACHINE = Client("poller", HASH, ("metrics:read", "items:read"))
PERSON = Client("person", CHOSEN, ("metrics:read",))


async def nobody(client_id):
    return None


class Clock:
    time = 1000.0

    def __call__(self):
        return self.time


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def clients(clock):
    return Clients({"poller": MACHINE, "person": PERSON}, nobody, now=clock)


def test_made_secrets_have_256_bits_and_never_repeat():
    assert len({new_secret()[0] for _ in range(50)}) == 50
    assert len(SECRET) >= 43
    assert sha256(SECRET.encode()).hexdigest() == HASH


def test_entries_are_read_although_argon2id_strings_hold_commas():
    text = f" poller:{HASH}:metrics:read items:read, person:{CHOSEN}:metrics:read,"
    assert parse_clients(text) == {"poller": MACHINE, "person": PERSON}


@pytest.mark.parametrize("text", [None, "", " ", ","])
def test_no_entries_are_no_clients(text):
    assert parse_clients(text) == {}


@pytest.mark.parametrize(
    "entry",
    [
        "poller",
        "poller:metrics:read",
        "poller:plaintext:metrics:read",
        f"poller:{HASH}",
        f"poller:{HASH}:",
        f"poller:{HASH}: ",
        f"poller:{HASH.upper()}:metrics:read",
        f"poller:{HASH}:metrics:red",
        f"po ller:{HASH}:metrics:read",
        f":{HASH}:metrics:read",
        "poller:$argon2id$v=19$broken:metrics:read",
        f"poller:{CHOSEN.replace('argon2id', 'argon2i')}:metrics:read",
        f"first:{HASH}:admin",
    ],
)
def test_a_bad_entry_is_named_by_its_number_and_not_repeated(entry):
    with pytest.raises(Stop, match=r"^AUTH_CLIENTS: entry 2\b") as stop:
        parse_clients(f"first:{HASH}:metrics:read,{entry}")
    assert stop.value.exit_code == 2
    assert HASH not in str(stop.value)
    assert "plaintext" not in str(stop.value)


@pytest.mark.parametrize(
    ("client_id", "secret"), [("poller", SECRET), ("person", "correct horse, battery: staple")]
)
async def test_the_right_secret_gets_in(clients, client_id, secret):
    assert (
        await clients.authenticate(client_id, [b"other spelling", secret.encode()], "192.0.2.1")
    ).id == client_id


async def test_stored_clients_count_too(clock):
    async def stored(client_id):
        return MACHINE if client_id == "poller" else None

    assert (
        await Clients({}, stored, now=clock).authenticate("poller", [SECRET.encode()], "192.0.2.1") is MACHINE
    )


WRONG = {
    "unknown client": ("stranger", SECRET),
    "wrong secret": ("poller", SECRET[:-1]),
    "wrong chosen secret": ("person", "correct horse"),
    "the hash as secret": ("poller", HASH),
    "the chosen hash as secret": ("person", CHOSEN),
    "no secret": ("poller", ""),
    "no client": ("", ""),
    "client with NUL": ("poller\x00", SECRET),
    "client in other case": ("Poller", SECRET),
    "a secret that is not Unicode": ("poller", b"\xff\xd8"),
}


@pytest.mark.parametrize(("client_id", "secret"), WRONG.values(), ids=WRONG)
async def test_failures_all_look_alike(clients, client_id, secret):
    with pytest.raises(ClientRefused) as refused:
        await clients.authenticate(
            client_id, [secret if isinstance(secret, bytes) else secret.encode()], "192.0.2.1"
        )
    assert (str(refused.value), refused.value.headers) == (
        "The client is unknown or its secret is wrong.",
        {"WWW-Authenticate": 'Basic realm="tally", charset="UTF-8"'},
    )


async def test_failures_cost_the_same_check_whoever_fails(clients, monkeypatch):
    checks = []
    monkeypatch.setattr("service.auth.clients._verify", lambda hashed, _: bool(checks.append(hashed)))
    for client_id in ("stranger", "poller", "person", "x\x00"):
        with pytest.raises(ClientRefused):
            await clients.authenticate(client_id, [b"wrong"], "192.0.2.1")
    assert checks == [CHOSEN] * 4


@pytest.fixture
async def tired(clients, monkeypatch):
    """Clients after one address has used up its failures."""
    monkeypatch.setattr("service.auth.clients._verify", lambda *_: False)
    for number in range(FAILURES_A_MINUTE):
        with pytest.raises(ClientRefused):
            await clients.authenticate(f"guess-{number}", [b"wrong"], "192.0.2.1")
    monkeypatch.undo()
    return clients


@pytest.mark.parametrize("client_id", ["stranger", "poller", "person"])
async def test_too_many_failures_are_slowed_whoever_fails(tired, clock, client_id):
    with pytest.raises(ClientFailures) as slowed:
        await tired.authenticate(client_id, [b"wrong"], "192.0.2.1")
    assert slowed.value.headers == {"Retry-After": "1"}
    clock.time += 1
    with pytest.raises(ClientRefused):
        await tired.authenticate(client_id, [b"wrong"], "192.0.2.1")


async def test_failures_of_others_lock_nobody_out(tired):
    assert await tired.authenticate("poller", [SECRET.encode()], "192.0.2.1")
    assert await tired.authenticate("person", [b"correct horse, battery: staple"], "192.0.2.2")


async def test_a_chosen_secret_cannot_be_guessed_on_past_the_limit(tired):
    with pytest.raises(ClientFailures):
        await tired.authenticate("person", [b"correct horse, battery: staple"], "192.0.2.1")


async def test_neighbouring_ipv6_addresses_fail_as_one(clients, monkeypatch):
    monkeypatch.setattr("service.auth.clients._verify", lambda *_: False)
    for number in range(FAILURES_A_MINUTE):
        with pytest.raises(ClientRefused):
            await clients.authenticate("x", [b"wrong"], f"2001:db8::{number:x}")
    with pytest.raises(ClientFailures):
        await clients.authenticate("x", [b"wrong"], "2001:db8::ffff")
    with pytest.raises(ClientRefused):
        await clients.authenticate("x", [b"wrong"], "2001:db8:0:1::1")


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        (None, ("metrics:read", "items:read")),
        ("items:read", ("items:read",)),
        ("items:read metrics:read items:read", ("items:read", "metrics:read")),
    ],
)
def test_a_token_gets_the_scopes_asked_for_or_all(asked, given):
    assert narrow(MACHINE, asked) == given


@pytest.mark.parametrize(
    "asked",
    ["admin", "metrics:read admin", "metrics:write", "api/backend_access", "", " ", "METRICS:READ", "*"],
)
def test_a_client_cannot_ask_for_more_than_it_has(asked):
    with pytest.raises(ScopeRefused):
        narrow(MACHINE, asked)


def test_backend_access_includes_what_it_stands_for_but_not_admin():
    backend = Client("backend", HASH, ("api/backend_access",))
    assert narrow(backend, "imports:write") == ("imports:write",)
    assert narrow(backend, "api/backend_access") == ("api/backend_access",)
    with pytest.raises(ScopeRefused):
        narrow(backend, "admin")


def test_all_single_scopes_are_not_backend_access():
    every = Client("every", HASH, ("metrics:read", "metrics:write", "admin"))
    with pytest.raises(ScopeRefused):
        narrow(every, "api/backend_access")
