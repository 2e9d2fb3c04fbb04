"""Our own tokens: keys on disk, rotation, and that what we sign is what we accept."""

import json
from concurrent.futures import ThreadPoolExecutor
from time import time

import jwt
import pytest

from service.auth.issuer import AUDIENCE, Issuer, KeyFile
from service.auth.tokens import Tokens
from service.errors import InvalidToken, Stop

NAME = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder that has its key already: making one takes a tenth of a second."""
    folder = tmp_path_factory.mktemp("data")
    KeyFile(folder).read()
    return folder


class Clock:
    def __init__(self):
        self.time = time()

    def __call__(self):
        return self.time


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def own(tmp_path, folder):
    """A folder of one's own to rotate in."""
    source = folder / "signing-keys.json"
    (tmp_path / source.name).write_bytes(source.read_bytes())
    (tmp_path / source.name).chmod(0o600)
    return tmp_path


async def test_a_token_we_signed_gets_in(folder):
    issuer = Issuer(NAME, KeyFile(folder))
    principal = await Tokens([issuer.trust()]).verify(issuer.sign("cli", ["metrics:read"]).encode())
    assert principal.subject == "cli"
    assert principal.scopes == {"metrics:read"}


async def test_a_token_is_only_good_where_it_was_issued(folder):
    token = Issuer("https://elsewhere.example", KeyFile(folder)).sign("cli", ["admin"]).encode()
    with pytest.raises(InvalidToken, match="issuer"):
        await Tokens([Issuer(NAME, KeyFile(folder)).trust()]).verify(token)


def test_any_library_can_check_our_tokens_by_the_published_keys(folder):
    issuer = Issuer(NAME, KeyFile(folder))
    token = issuer.sign("cli", ["metrics:read", "items:read"], 60)
    header = jwt.get_unverified_header(token)
    key = jwt.PyJWKSet.from_dict(issuer.jwks())[header["kid"]]
    claims = jwt.decode(token, key, ["RS256"], audience=AUDIENCE, issuer=NAME)
    assert header["typ"] == "at+jwt"
    assert claims["scope"] == "metrics:read items:read"
    assert claims["client_id"] == "cli"
    assert claims["exp"] - claims["iat"] == 60
    assert claims["jti"] != jwt.decode(issuer.sign("cli", []), key, ["RS256"], audience=AUDIENCE)["jti"]


def test_the_published_keys_hold_no_private_part(folder):
    (key,) = Issuer(NAME, KeyFile(folder)).jwks()["keys"]
    assert set(key) == {"kid", "use", "alg", "kty", "n", "e"}


def test_key_files_can_be_read_by_their_owner_only(folder):
    made = list(folder.iterdir())
    assert made
    assert {file.stat().st_mode & 0o777 for file in made} == {0o600}


def test_workers_that_start_together_agree_on_one_key(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        kids = list(pool.map(lambda _: KeyFile(tmp_path / "new").read()[0].kid, range(8)))
    assert len(set(kids)) == 1


async def test_after_a_rotation_old_and_new_tokens_get_in_until_the_overlap_ends(own, clock):
    issuer = Issuer(NAME, KeyFile(own, now=clock), now=clock)
    tokens = Tokens([issuer.trust()], now=clock)
    old = issuer.sign("cli", ["metrics:read"], 100_000).encode()
    assert await tokens.verify(old)
    KeyFile(own, now=clock).rotate(3600)
    new = issuer.sign("cli", ["metrics:read"], 100_000).encode()
    assert jwt.get_unverified_header(new)["kid"] != jwt.get_unverified_header(old)["kid"]
    assert await tokens.verify(new)
    assert await tokens.verify(old)
    assert len(issuer.jwks()["keys"]) == 2
    clock.time += 3601
    assert len(issuer.jwks()["keys"]) == 1
    after = Tokens([issuer.trust()], now=clock)
    assert await after.verify(new)
    with pytest.raises(InvalidToken, match="key"):
        await after.verify(old)


async def test_a_rotation_without_overlap_ends_remembered_tokens_too(own):
    issuer = Issuer(NAME, KeyFile(own))
    tokens = Tokens([issuer.trust()])
    old = issuer.sign("cli", ["metrics:read"]).encode()
    assert await tokens.verify(old)
    KeyFile(own).rotate(0)
    assert await tokens.verify(issuer.sign("cli", ["metrics:read"]).encode())
    assert tokens.lookup(old) is None
    with pytest.raises(InvalidToken, match="key"):
        await tokens.verify(old)


def test_rotating_twice_does_not_prolong_the_oldest_key(own, clock):
    file = KeyFile(own, now=clock)
    first = file.read()[0].kid
    file.rotate(100)
    clock.time += 50
    file.rotate(100)
    assert [key.kid for key in file.read()].index(first) == 2
    clock.time += 51
    assert first not in [key.kid for key in file.read()]


def test_rotation_works_in_an_empty_folder(tmp_path):
    assert KeyFile(tmp_path).rotate(0).kid == KeyFile(tmp_path).read()[0].kid


def test_a_key_file_open_to_others_is_not_used(own):
    (own / "signing-keys.json").chmod(0o644)
    with pytest.raises(Stop, match="chmod 600"):
        KeyFile(own).read()


@pytest.mark.parametrize("text", ["", "{}", "[]", "[1]", "not JSON"])
def test_a_damaged_key_file_is_named_and_its_content_is_not(own, text):
    (own / "signing-keys.json").write_text(text)
    with pytest.raises(Stop, match=r"signing-keys\.json") as stop:
        KeyFile(own).read()
    assert "\n" not in str(stop.value)


def test_an_unusable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Stop, match="file"):
        KeyFile(tmp_path / "file").read()


def test_private_numbers_stay_in_the_file(own):
    private = json.loads((own / "signing-keys.json").read_text())[0]["jwk"]["d"]
    issuer = Issuer(NAME, KeyFile(own))
    assert private not in json.dumps(issuer.jwks()) + issuer.sign("cli", [])


@pytest.mark.parametrize(
    "subject",
    ["https://issuer.example|grafana", "a|b", "", " a", "a\x1b[2J", "a\u202eb", "a\u2028b", "a" * 256],
    ids=ascii,
)
async def test_a_subject_that_may_be_taken_for_another_does_not_get_in(folder, subject):
    issuer = Issuer(NAME, KeyFile(folder))
    with pytest.raises(InvalidToken, match="subject"):
        await Tokens([issuer.trust()]).verify(issuer.sign(subject, ["metrics:read"]).encode())
