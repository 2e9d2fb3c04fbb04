"""A whole run of the service as a process, with tokens: what it prints, and when it will not start."""

import base64
import json
import re
import signal
import urllib.error
import urllib.request

import pytest

from service.auth.clients import new_secret
from tests.processes import free_port, start, tally, until_ready

SECRET, HASH = new_secret()


def guarded(addresses, folder, **more):
    """Variables of a service that asks for tokens."""
    return {
        "DATABASE_URL": addresses.url,
        "READER_DATABASE_URL": addresses.reader_url,
        "DATA_DIR": folder,
        "AUTH": "on",
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "debug",
        **more,
    }


def call(url, *, data=None, **headers):
    request = urllib.request.Request(url, data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode(), str(answer.headers)
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.code, answer.read().decode(), str(answer.headers)


def basic(user, secret):
    return "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()


async def test_no_secret_is_printed_in_a_whole_run(addresses, tmp_path):
    port, answers = free_port(), []
    env = guarded(addresses, tmp_path, PORT=port, AUTH_CLIENTS=f"poller:{HASH}:metrics:read")
    added = tally("client", "add", "stored", "--scope", "items:read", "admin", **env)
    assert added.returncode == 0, added.stderr
    stored = added.stdout.strip()
    service, base = start(**env), f"http://127.0.0.1:{port}"
    try:
        until_ready(port)
        form = {"data": b"grant_type=client_credentials", "Content-Type": "application/x-www-form-urlencoded"}
        granted = call(f"{base}/oauth2/token", Authorization=basic("poller", SECRET), **form)
        assert granted[0] == 200
        token = json.loads(granted[1])["access_token"]
        # The command knows neither the service's port nor its address, only its key.
        commanded = tally("token", "--scope", "metrics:read", **env | {"PORT": 9}).stdout.strip()
        bearer = {"Authorization": f"Bearer {token}"}
        for good in (token, commanded):
            assert call(f"{base}/api/v1/metrics", Authorization=f"Bearer {good}")[0] == 200
        answers += [
            call(f"{base}/api/v1/metrics?access_token={token}"),
            call(f"{base}/api/v1/metrics/nonsense?access_token={token}", **bearer),
            call(f"{base}/api/v1/metrics", Authorization=f"Bearer {token[:-3]}AAA"),
            call(f"{base}/api/v1/metrics", Cookie=f"token={token}"),
            call(f"{base}/api/v1/audit", **bearer),
            call(f"{base}/api/v1/metrics", data=json.dumps({"prompt": token}).encode(), **bearer),
            call(f"{base}/oauth2/token", Authorization=basic("poller", SECRET + "x"), **form),
            call(f"{base}/oauth2/token", data=b'{"client_secret": "%s"}' % SECRET.encode()),
            call(f"{base}/oauth2/token", Authorization=basic("nobody", stored), **form),
        ]
        assert call(f"{base}/oauth2/token", Authorization=basic("stored", stored), **form)[0] == 200
        assert [status for status, _, _ in answers if status >= 500] == []
    finally:
        service.send_signal(signal.SIGTERM)
        printed, _ = service.communicate(timeout=20)
    key = json.loads((tmp_path / "signing-keys.json").read_text())[0]["jwk"]
    password = re.search(r":([^:@/]+)@", addresses.url)
    assert '"status":401' in printed
    assert '"status":403' in printed
    secrets = {
        "token": token,
        "tail of a token": token[-40:-3],
        "secret": SECRET,
        "hash": HASH,
        "DSN": addresses.url,
    }
    secrets |= {"stored secret": stored, "key": key["d"], "token of the command": commanded}
    if password:
        secrets["password"] = password[1]
    everything = printed + "".join(body + headers for _, body, headers in answers)
    assert [name for name, secret in secrets.items() if secret in everything] == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"AUTH": "off", "HOST": "0.0.0.0"}, "AUTH=off"),  # noqa: S104 (refused)
        ({"AUTH_CLIENTS": "poller:plaintext:metrics:read"}, "AUTH_CLIENTS"),
        ({"OIDC_ISSUER": "https://issuer.example"}, "OIDC_AUDIENCE"),
    ],
    ids=lambda value: "" if isinstance(value, str) else ",".join(value),
)
def test_a_service_that_would_be_open_or_closed_to_all_does_not_start(
    command, shared_addresses, tmp_path, more, said
):
    ended = command("serve", **guarded(shared_addresses, tmp_path, PORT=free_port(), **more))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert "plaintext" not in ended.stderr


def test_a_key_file_open_to_others_stops_the_start(command, shared_addresses, tmp_path):
    env = guarded(shared_addresses, tmp_path, PORT=free_port())
    assert command("token", **env).returncode == 0
    (tmp_path / "signing-keys.json").chmod(0o640)
    ended = command("serve", **env)
    assert (ended.returncode, "chmod 600" in ended.stderr) == (1, True)


COMMANDS = {
    "an unknown scope": (["token", "--scope", "metrics:red"], "unknown scope"),
    "no time": (["token", "--ttl", "0"], "--ttl"),
    "a year": (["token", "--ttl", "31536000"], "--ttl"),
    "an empty subject": (["token", "--subject", ""], "--subject"),
    "a subject of two lines": (["token", "--subject", "a\nb"], "--subject"),
    "a subject that runs backwards": (["token", "--subject", "a\u202eb"], "--subject"),
    "a subject with an escape sequence": (["token", "--subject", "a\x1b[2J"], "--subject"),
    "a subject with a line separator": (["token", "--subject", "a\u2028b"], "--subject"),
    "a subject of another issuer": (["token", "--subject", "https://issuer.example|a"], "--subject"),
    "a client with an odd id": (["client", "add", "a b", "--scope", "admin"], "a b"),
    "a short chosen secret": (["client", "add", "a", "--scope", "admin", "--chosen"], "at least"),
    "revoking nobody": (["client", "revoke", "nobody"], "nobody"),
    "a negative overlap": (["key", "rotate", "--overlap", "-1"], "--overlap"),
}


@pytest.mark.parametrize(("arguments", "said"), COMMANDS.values(), ids=COMMANDS)
def test_a_wrong_command_is_answered_in_one_sentence(command, shared_addresses, tmp_path, arguments, said):
    ended = command(*arguments, stdin="short\n", **guarded(shared_addresses, tmp_path))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_clients_are_kept_by_commands(command, addresses, tmp_path):
    env = guarded(addresses, tmp_path)
    made = command("client", "add", "poller", "--scope", "metrics:read items:read", **env)
    assert re.fullmatch(r"[\w-]{43}\n", made.stdout)
    chosen = command("client", "add", "ann", "--scope", "admin", "--chosen", stdin="a chosen secret\n", **env)
    assert (chosen.returncode, chosen.stdout) == (0, "")
    assert command("client", "revoke", "poller", **env).returncode == 0
    renewed = command("client", "renew", "ann", **env)
    assert re.fullmatch(r"[\w-]{43}\n", renewed.stdout)
    assert command("client", "renew", "poller", **env).returncode == 2
    ann, poller = map(json.loads, command("client", "list", **env).stdout.splitlines())
    assert (ann["id"], ann["scopes"], ann["chosen"], ann["revoked_at"]) == ("ann", ["admin"], False, None)
    assert (poller["id"], poller["scopes"], poller["chosen"]) == (
        "poller",
        ["metrics:read", "items:read"],
        False,
    )
    assert re.match(r"\d{4}-\d\d-\d\dT", poller["revoked_at"])
