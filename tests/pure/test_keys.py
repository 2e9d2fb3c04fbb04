"""Keys of issuers: which are usable, and when they are fetched."""

import asyncio

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from service.auth.keys import Keys, oidc_trust, read_jwks
from service.errors import IssuerUnavailable, UpstreamFailed
from service.observe.events import Event, KeysNotFetched

FIRST, SECOND = (
    RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 2048).public_key(), as_dict=True) | {"kid": kid}
    for kid in ("first", "second")
)


def jwk(algorithm, key, **more):
    return algorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": "odd"} | more


USELESS = {
    "a shared secret": {"kty": "oct", "kid": "odd", "k": "c2VjcmV0"},
    "an RSA key of 1024 bits": jwk(RSAAlgorithm, rsa.generate_private_key(65537, 1024)),  # noqa: S505 (on purpose)
    "a key for encryption": FIRST | {"use": "enc"},
    "another algorithm": FIRST | {"alg": "RS512"},
    "an algorithm of the wrong kind": FIRST | {"alg": "ES256"},
    "a shared-secret algorithm on a public key": FIRST | {"alg": "HS256"},
    "another curve": jwk(ECAlgorithm, ec.generate_private_key(ec.SECP384R1())),
    "another curve under an allowed name": jwk(
        ECAlgorithm, ec.generate_private_key(ec.SECP384R1()), alg="ES256"
    ),
    "Ed448": jwk(OKPAlgorithm, ed448.Ed448PrivateKey.generate(), alg="EdDSA"),
    "kid a list": FIRST | {"kid": ["first"]},
    "no kind": {"kid": "odd"},
    "no modulus": {"kty": "RSA", "kid": "odd", "e": "AQAB"},
    "text": "key",
    "nothing": None,
}


@pytest.mark.parametrize("entry", USELESS.values(), ids=USELESS)
def test_a_key_that_cannot_be_used_is_passed_over(entry):
    assert list(read_jwks({"keys": [entry, SECOND]})) == ["second"]


@pytest.mark.parametrize("document", [None, [], {}, {"keys": {}}, {"keys": None}, "keys"])
def test_what_is_no_key_set_holds_no_keys(document):
    assert read_jwks(document) == {}


class Server:
    def __init__(self, *keys):
        self.keys = keys
        self.asked = 0
        self.clock = 1000.0
        self.open = asyncio.Event()
        self.open.set()
        self.down = False
        self.observed: list[Event] = []

    async def __call__(self):
        self.asked += 1
        await self.open.wait()
        if self.down:
            raise UpstreamFailed
        return {"keys": list(self.keys)}

    def watched(self):
        return Keys(self, now=lambda: self.clock, observe=self.observed.append)


async def test_keys_are_fetched_once_for_many_who_wait():
    server = Server(FIRST)
    keys = server.watched()
    server.open.clear()
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(keys.find("first")) for _ in range(50)]
        await asyncio.sleep(0)
        server.open.set()
    assert all(task.result() is not None for task in waiting)
    assert server.asked == 1


async def test_an_unknown_key_is_looked_for_once_per_interval():
    server = Server(FIRST)
    keys = server.watched()
    assert await keys.find("first")
    for number in range(1000):
        assert await keys.find(f"unknown {number}") is None
    assert server.asked == 1
    server.clock += 6
    for number in range(1000):
        assert await keys.find(f"unknown {number}") is None
    assert server.asked == 2


async def test_a_new_key_is_found_when_a_token_names_it():
    server = Server(FIRST)
    keys = server.watched()
    assert await keys.find("first")
    server.keys = (SECOND, FIRST)
    server.clock += 6
    assert await keys.find("second")
    assert await keys.find("first")


async def test_known_keys_do_not_wait_for_a_fetch():
    server = Server(FIRST)
    keys = server.watched()
    assert await keys.find("first")
    server.clock += 6
    server.open.clear()
    async with asyncio.TaskGroup() as group:
        stuck = group.create_task(keys.find("unknown"))
        await asyncio.sleep(0)
        assert await keys.find("first")
        assert not stuck.done()
        server.open.set()


async def test_known_keys_go_on_while_the_issuer_is_down():
    server = Server(FIRST)
    keys = server.watched()
    assert await keys.find("first")
    server.down = True
    server.clock += 86_400
    assert await keys.find("first")
    assert await keys.find("second") is None
    assert await keys.find("first")
    assert server.observed == [KeysNotFetched(str(UpstreamFailed()), 1)]
    server.down, server.keys = False, (SECOND,)
    server.clock += 6
    assert await keys.find("second")


async def test_an_issuer_that_was_never_reached_is_said_to_be_unavailable():
    server = Server(FIRST)
    server.down = True
    keys = server.watched()
    for _ in range(3):
        with pytest.raises(IssuerUnavailable) as unavailable:
            await keys.find("first")
        assert unavailable.value.headers == {"Retry-After": "5"}
    assert server.asked == 1
    server.down = False
    server.clock += 6
    assert await keys.find("first")


async def test_an_answer_without_a_usable_key_keeps_what_is_known():
    server = Server(FIRST)
    keys = server.watched()
    assert await keys.find("first")
    server.keys = ({"kty": "oct", "k": "AAAA"},)
    server.clock += 6
    assert await keys.find("unknown") is None
    assert await keys.find("first")


async def test_a_withdrawn_key_is_gone_once_the_set_is_old():
    server = Server(FIRST, SECOND)
    keys = server.watched()
    assert await keys.find("first")
    generation = keys.generation
    server.keys = (SECOND,)
    server.clock += 601
    assert await keys.find("first")
    await keys._task
    assert await keys.find("first") is None
    assert keys.generation == generation + 1


async def test_one_key_needs_no_name():
    assert await Server(FIRST).watched().find(None)
    assert await Server(FIRST, SECOND).watched().find(None) is None


async def test_closing_ends_a_fetch_under_way():
    server = Server(FIRST)
    server.open.clear()
    keys = server.watched()
    keys.refresh_if_old()
    await asyncio.sleep(0)
    await keys.close()
    assert keys._task.cancelled()


@pytest.mark.parametrize(
    ("issuer", "address"),
    [
        ("https://a.example/pool", "https://a.example/pool/.well-known/openid-configuration"),
        ("https://a.example/", "https://a.example/.well-known/openid-configuration"),
    ],
    ids=["plain", "trailing slash"],
)
async def test_the_key_address_comes_from_discovery(issuer, address):
    asked = []

    async def fetch(url):
        asked.append(url)
        keys = {"keys": [FIRST]}
        return (
            keys
            if url == "https://a.example/keys"
            else {"issuer": issuer, "jwks_uri": "https://a.example/keys"}
        )

    assert await oidc_trust(issuer, ["tally"], None, fetch).keys.find("first")
    assert asked == [address, "https://a.example/keys"]


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://evil.example", "jwks_uri": "https://evil.example/keys"},
        {"issuer": "https://a.example"},
        {"issuer": "https://a.example", "jwks_uri": None},
        [],
    ],
    ids=["another issuer", "no key address", "key address null", "no object"],
)
async def test_a_wrong_discovery_document_gives_no_keys(document):
    async def fetch(url):
        return document

    with pytest.raises(IssuerUnavailable):
        await oidc_trust("https://a.example", ["tally"], None, fetch).keys.find("first")
