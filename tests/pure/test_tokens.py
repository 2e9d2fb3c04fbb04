"""Which tokens get in: those of trusted issuers, whole, current and meant for us; no trick does."""

import asyncio
import base64
import json
import random
from time import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from service.auth import tokens as module
from service.auth.keys import oidc_trust
from service.auth.tokens import LEEWAY_S, SCOPES, TOKEN_BYTES, Tokens
from service.errors import InvalidToken

ISSUER = "https://issuer.example/pool"
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
STRANGER = rsa.generate_private_key(65537, 2048)


def public(algorithm, key, kid, **more):
    return algorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": kid, "use": "sig"} | more


JWKS = {
    "keys": [
        public(RSAAlgorithm, RSA, "rsa"),
        public(ECAlgorithm, EC, "ec", alg="ES256"),
        public(OKPAlgorithm, ED, "ed"),
    ]
}


def claims(**changes):
    whole = {
        "iss": ISSUER,
        "sub": "poller",
        "aud": "tally",
        "exp": int(time()) + 600,
        "scope": "metrics:read",
    }
    return {name: value for name, value in (whole | changes).items() if value is not ...}


def sign(payload=None, *, key=RSA, algorithm="RS256", **headers):
    return jwt.encode(payload or claims(), key, algorithm, {"kid": "rsa"} | headers).encode()


def part(value):
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=")


def sign_raw(payload: bytes, header: bytes = b'{"alg":"RS256","kid":"rsa"}'):
    """A correct signature over text that no library would write."""
    signed = part(header) + b"." + part(payload)
    return signed + b"." + part(jwt.get_algorithm_by_name("RS256").sign(signed, RSA))


class Jwks:
    """Stands for the issuer's server: what it answers, and how often it was asked."""

    def __init__(self, answer=JWKS):
        self.answer = answer
        self.asked = 0

    async def __call__(self, url):
        self.asked += 1
        await asyncio.sleep(0)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def jwks():
    return Jwks()


@pytest.fixture
async def tokens(jwks):
    found = Tokens([oidc_trust(ISSUER, ["tally"], "https://issuer.example/keys", jwks)])
    yield found
    await found.close()


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"),
    [(RSA, "RS256", "rsa"), (EC, "ES256", "ec"), (ED, "EdDSA", "ed")],
    ids=["RS256", "ES256", "EdDSA"],
)
async def test_a_good_token_gets_in_by_each_allowed_algorithm(tokens, key, algorithm, kid):
    principal = await tokens.verify(sign(key=key, algorithm=algorithm, kid=kid))
    assert principal.subject == json.loads(principal.claims)["sub"] == f"{ISSUER}|poller"
    assert principal.scopes == {"metrics:read"}
    assert json.loads(principal.claims)["iss"] == ISSUER


@pytest.mark.parametrize(
    ("scope", "granted"),
    [
        ("metrics:read items:read", {"metrics:read", "items:read"}),
        (["metrics:read", "items:read"], {"metrics:read", "items:read"}),
        ("api/backend_access", set(SCOPES) - {"admin"}),
        ("api/backend_access admin", set(SCOPES)),
        ("openid METRICS:READ metrics:reads metrics", set()),
        (..., set()),
    ],
    ids=["text", "list", "backend", "backend and admin", "unknown", "none"],
)
async def test_scopes_are_those_of_ours_that_the_token_names(tokens, scope, granted):
    assert (await tokens.verify(sign(claims(scope=scope)))).scopes == granted


@pytest.mark.parametrize("sub", ["auth0|5f7c8ec7", "Ann Example", "ann@example.org", "Zoë 🦄"])
async def test_a_subject_is_the_issuers_and_no_client_of_ours(tokens, sub):
    principal = await tokens.verify(sign(claims(sub=sub)))
    assert principal.subject == json.loads(principal.claims)["sub"] == f"{ISSUER}|{sub}"


ODD_CLAIMS = {
    "expired": claims(exp=int(time()) - LEEWAY_S - 1),
    "not valid yet": claims(nbf=int(time()) + 86_400),
    "no exp": claims(exp=...),
    "no sub": claims(sub=...),
    "no iss": claims(iss=...),
    "no aud": claims(aud=...),
    "exp as text": claims(exp=str(int(time()) + 600)),
    "exp as truth": claims(exp=True),
    "exp beyond the calendar": claims(exp=10**30),
    "nbf as text": claims(nbf="0"),
    "null nbf": claims(nbf=None),
    "other audience": claims(aud="tally2"),
    "audience in other case": claims(aud="Tally"),
    "no audience in the list": claims(aud=["a", "b"]),
    "empty audience": claims(aud=[]),
    "audience as object": claims(aud={"tally": 1}),
    "other issuer": claims(iss="https://issuer.example"),
    "issuer with a slash more": claims(iss=ISSUER + "/"),
    "issuer as list": claims(iss=[ISSUER]),
    "subject as number": claims(sub=7),
    "subject with a line break": claims(sub="a\nb"),
    "subject with an escape sequence": claims(sub="a\x1b[2Jb"),
    "subject with a C1 character": claims(sub="a\x9bb"),
    "subject with DEL": claims(sub="a\x7fb"),
    "subject with a NUL": claims(sub="a\x00b"),
    "subject that runs backwards": claims(sub="a\u202eb"),
    "subject with an isolate": claims(sub="a\u2066b"),
    "subject with a right-to-left mark": claims(sub="a\u200fb"),
    "subject with an Arabic letter mark": claims(sub="a\u061cb"),
    "subject with a zero width space": claims(sub="graf\u200bana"),
    "subject with a byte order mark": claims(sub="\ufeffgrafana"),
    "subject with a line separator": claims(sub="a\u2028b"),
    "subject with a paragraph separator": claims(sub="a\u2029b"),
    "subject with a no-break space": claims(sub="a\u00a0b"),
    "subject with a next line": claims(sub="a\x85b"),
    "subject with a tab": claims(sub="a\tb"),
    "subject with a space before": claims(sub=" grafana"),
    "subject with a space after": claims(sub="grafana "),
    "subject of spaces": claims(sub="  "),
    "empty subject": claims(sub=""),
    "very long subject": claims(sub="a" * 300),
    "scope as number": claims(scope=1),
    "scope of objects": claims(scope=[{}]),
    "lone surrogate": claims(note="\ud800"),
    "an identity token of Cognito": claims(token_use="id"),
    "an identity token of Keycloak": claims(typ="ID"),
    "a refresh token of Keycloak": claims(typ="Refresh"),
}


@pytest.mark.parametrize("payload", ODD_CLAIMS.values(), ids=ODD_CLAIMS)
async def test_a_correctly_signed_token_with_odd_claims_is_refused(tokens, payload):
    with pytest.raises(InvalidToken):
        await tokens.verify(sign_raw(json.dumps(payload).encode()))


async def test_clocks_may_differ_by_half_a_minute(tokens):
    now = int(time())
    assert await tokens.verify(sign(claims(exp=now - LEEWAY_S + 5, nbf=now + LEEWAY_S - 5)))


def pem():
    return RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def hmac_with_public_key(secret: bytes):
    """PyJWT refuses to make these, an attacker does not."""
    signed = part({"alg": "HS256", "kid": "rsa"}) + b"." + part(claims())
    return signed + b"." + part(jwt.get_algorithm_by_name("HS256").sign(signed, secret))


def unsigned(alg, signature=b""):
    return part({"alg": alg, "kid": "rsa"}) + b"." + part(claims()) + b"." + signature


def embedded(**header):
    own = public(RSAAlgorithm, STRANGER, "rsa")
    return sign(
        key=STRANGER, jwk=own, jku="https://evil.example/keys", x5u="https://evil.example/x", **header
    )


GOOD = sign()
HEAD, BODY, TAIL = GOOD.split(b".")
TRICKS = {
    "alg none": unsigned("none"),
    "alg None": unsigned("None"),
    "alg nOnE with a signature": unsigned("nOnE", TAIL),
    "alg empty": unsigned("", TAIL),
    "alg a number": unsigned(0, TAIL),
    "alg a list": unsigned(["RS256"], TAIL),
    "no alg": part({"kid": "rsa"}) + b"." + part(claims()) + b"." + TAIL,
    "HS256 with the public key as PEM": hmac_with_public_key(pem()),
    "HS256 with the PEM without line end": hmac_with_public_key(pem().strip()),
    "HS256 with the modulus": hmac_with_public_key(JWKS["keys"][0]["n"].encode()),
    "HS256 with nothing": hmac_with_public_key(b""),
    "RS384 by the right key": sign(algorithm="RS384"),
    "PS256 by the right key": sign(algorithm="PS256"),
    "RS256 named for the EC key": sign(kid="ec"),
    "ES256 named for the RSA key": sign(key=EC, algorithm="ES256", kid="rsa"),
    "another's key under a known kid": sign(key=STRANGER),
    "another's key embedded": embedded(),
    "another's key embedded under a new kid": embedded(kid="evil"),
    "kid as a path": sign(kid="../../../../dev/null"),
    "kid as SQL": sign(kid="x' UNION SELECT 'key' --"),
    "kid as an address": sign(kid="https://evil.example/key"),
    "kid empty": sign(kid=""),
    "kid very long": sign(kid="k" * 5000),
    "kid a number": sign_raw(json.dumps(claims()).encode(), b'{"alg":"RS256","kid":1}'),
    "kid an object": sign_raw(json.dumps(claims()).encode(), b'{"alg":"RS256","kid":{}}'),
    "no kid among several keys": sign_raw(json.dumps(claims()).encode(), b'{"alg":"RS256"}'),
    "crit": sign(crit=["exp"]),
    "b64 false": sign_raw(json.dumps(claims()).encode(), b'{"alg":"RS256","kid":"rsa","b64":false}'),
    "a logout token": sign(typ="logout+jwt"),
    "a claim twice": sign_raw(json.dumps(claims()).encode()[:-1] + b',"scope":"admin"}'),
    "alg twice": sign_raw(json.dumps(claims()).encode(), b'{"alg":"none","alg":"RS256","kid":"rsa"}'),
    "a name twice, deep inside": sign_raw(json.dumps(claims()).encode()[:-1] + b',"x":{"a":1,"a":2}}'),
    "exp NaN": sign_raw(b'{"exp":NaN,"iss":"%s","sub":"a","aud":"tally"}' % ISSUER.encode()),
    "exp Infinity": sign_raw(b'{"exp":Infinity,"iss":"%s","sub":"a","aud":"tally"}' % ISSUER.encode()),
    "exp 1e999": sign_raw(b'{"exp":1e999,"iss":"%s","sub":"a","aud":"tally"}' % ISSUER.encode()),
    "claims no object": sign_raw(b"[]"),
    "claims no JSON": sign_raw(b"hello"),
    "claims no UTF-8": sign_raw(b'{"iss":"\xff"}'),
    "claims nested without end": sign_raw(b'{"a":' + b"[" * 9000),
    "a number of ten thousand digits": sign_raw(b'{"exp":' + b"9" * 10_000 + b"}"),
    "no signature": HEAD + b"." + BODY + b".",
    "signature of another token": b".".join([HEAD, part(claims(sub="other")), TAIL]),
    "signature cut": GOOD[:-4],
    "signature padded": GOOD + b"==",
    "two parts": HEAD + b"." + BODY,
    "four parts": GOOD + b"." + TAIL,
    "five parts, as an encrypted token": GOOD + b".a.b",
    "white space inside": HEAD + b". " + BODY + b"." + TAIL,
    "a line break at the end": GOOD + b"\n",
    "standard base64": GOOD.replace(b"-", b"+").replace(b"_", b"/") + b"+",
    "empty": b"",
    "dots": b"..",
    "bytes": b"\xff\x00\xfe",
    "one megabyte": b"a" * (1 << 20),
    "one megabyte, well-formed": sign(claims(note="a" * (1 << 20))),
    "one byte too long": b"a" * (TOKEN_BYTES + 1),
}


@pytest.mark.parametrize("token", TRICKS.values(), ids=TRICKS)
async def test_a_trick_is_refused(tokens, token):
    with pytest.raises(InvalidToken) as refused:
        await tokens.verify(token)
    assert tokens.lookup(token) is None
    assert len(str(refused.value)) < 200


async def test_the_tricks_fail_for_their_own_reason_only(tokens):
    """Else a slip in this file's own helpers would let every trick pass as refused."""
    assert await tokens.verify(sign_raw(json.dumps(claims()).encode()))
    assert await tokens.verify(sign(jwk=public(RSAAlgorithm, STRANGER, "rsa"), jku="https://evil.example"))


async def test_no_flipped_bit_is_overlooked(tokens):
    good = sign()
    assert await tokens.verify(good)
    chance = random.Random(2026)  # noqa: S311 (a fixed sample)
    for position in chance.sample(range(len(good) * 8), 200):
        flipped = bytearray(good)
        flipped[position // 8] ^= 1 << position % 8
        with pytest.raises(InvalidToken):
            await tokens.verify(bytes(flipped))


async def test_unused_bits_at_the_end_of_the_signature_do_not_make_a_second_token(tokens):
    good = sign()
    for letter in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_":
        if letter != good[-1]:
            with pytest.raises(InvalidToken):
                await tokens.verify(good[:-1] + bytes([letter]))


async def test_a_verified_token_is_one_lookup_until_it_expires(jwks):
    now = time()
    tokens = Tokens([oidc_trust(ISSUER, ["tally"], "https://issuer.example/keys", jwks)], now=lambda: now)
    good = sign(claims(exp=int(now) + 100))
    assert tokens.lookup(good) is None
    principal = await tokens.verify(good)
    assert tokens.lookup(good) is principal
    now += 100 + LEEWAY_S + 1
    assert tokens.lookup(good) is None
    with pytest.raises(InvalidToken, match="expired"):
        await tokens.verify(good)


async def test_many_different_tokens_do_not_grow_memory_without_bound(tokens, monkeypatch):
    monkeypatch.setattr(module, "REMEMBERED_BYTES", 40_000)
    signed = [
        sign(claims(sub=f"poller {number}"), key=ED, algorithm="EdDSA", kid="ed") for number in range(60)
    ]
    for token in signed:
        assert await tokens.verify(token)
    kept = [token for token in signed if tokens.lookup(token)]
    assert 5 < len(kept) < 40
    assert kept == signed[-len(kept) :]
    assert sum(len(token) for token in kept) < 40_000
    assert await tokens.verify(signed[0])


async def test_a_wrong_signature_is_checked_once(tokens, monkeypatch):
    bad = sign(key=STRANGER)
    with pytest.raises(InvalidToken):
        await tokens.verify(bad)
    monkeypatch.setattr("service.auth.keys.Key.signed", lambda *_: pytest.fail("checked again"))
    with pytest.raises(InvalidToken, match="signature"):
        await tokens.verify(bad)


async def test_wrong_signatures_do_not_grow_memory_without_bound(tokens, monkeypatch):
    monkeypatch.setattr(module, "REFUSED_TOKENS", 10)
    for number in range(30):
        with pytest.raises(InvalidToken):
            await tokens.verify(sign(claims(sub=f"{number}"), key=EC, algorithm="ES256", kid="rsa"))
    assert len(tokens._refused) == 10


async def test_an_access_token_of_cognito_names_its_client_instead_of_an_audience(tokens):
    cognito = claims(aud=..., client_id="tally", token_use="access", scope="api/backend_access")
    assert "metrics:write" in (await tokens.verify(sign(cognito))).scopes
    with pytest.raises(InvalidToken, match="audience"):
        await tokens.verify(sign(cognito | {"client_id": "another"}))


async def test_an_audience_given_is_not_overruled_by_the_client(tokens):
    with pytest.raises(InvalidToken, match="audience"):
        await tokens.verify(sign(claims(aud="another", client_id="tally")))


async def test_a_token_of_one_issuer_cannot_be_signed_by_the_other(jwks):
    other = Jwks({"keys": [public(RSAAlgorithm, STRANGER, "other")]})
    tokens = Tokens(
        [
            oidc_trust(ISSUER, ["tally"], "https://issuer.example/keys", jwks),
            oidc_trust("https://other.example", ["tally"], "https://other.example/keys", other),
        ]
    )
    assert await tokens.verify(sign(claims(iss="https://other.example"), key=STRANGER, kid="other"))
    for kid in ("rsa", "other"):
        with pytest.raises(InvalidToken):
            await tokens.verify(sign(key=STRANGER, kid=kid))


async def test_a_withdrawn_key_ends_remembered_tokens_even_if_nobody_sends_a_new_one(jwks):
    trust = oidc_trust(ISSUER, ["tally"], "https://issuer.example/keys", jwks)
    tokens = Tokens([trust])
    by_rsa, by_ed = sign(), sign(key=ED, algorithm="EdDSA", kid="ed")
    for token in (by_rsa, by_ed):
        assert await tokens.verify(token)
    jwks.answer = {"keys": JWKS["keys"][1:]}
    trust.keys._loaded_at = trust.keys._tried_at = float("-inf")  # old by now
    watching = asyncio.create_task(tokens.watch(every_s=0))
    async with asyncio.timeout(5):
        while tokens.lookup(by_rsa) is not None:  # noqa: ASYNC110 (the watch runs meanwhile)
            await asyncio.sleep(0)
    watching.cancel()
    with pytest.raises(InvalidToken, match="key"):
        await tokens.verify(by_rsa)
    assert await tokens.verify(by_ed)
