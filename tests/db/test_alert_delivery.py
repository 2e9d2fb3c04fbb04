"""Messages about alerts: each arrives, whatever the receivers do, and none waits for another."""

import asyncio
import socket
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from service.alerts.deliver import PAUSES_S, Deliverer
from service.alerts.messages import Message, headers, messages, signature, text_of
from service.alerts.store import new_secret, replay
from service.audit import Actor
from service.database.queries import Command
from service.errors import Conflict, NotFound
from service.mail import Mail
from service.outbound import Webhooks, is_public
from service.results.feed import ChangeFeed
from tests.alerting import Scene
from tests.conftest import store_metric
from tests.receivers import receiving, status, taking_mail
from tests.waiting import until

RULE = Command(
    "r",
    "WITH rule AS (INSERT INTO app.alert_rule (id, metric_id, name, definition) VALUES ($1, $2, 'R', $3))"
    " INSERT INTO app.alert_secret (rule_id, secret) VALUES ($1, $4)",
)
ALERT = Command(
    "a",
    "INSERT INTO app.alert (id, rule_id, metric_id, series, series_key, cause, point, last_point, state,"
    " opened_at, updated_at) VALUES ($1, $2, $3, '{}', '{}', 'value', 'p', 'p', 'firing', now(), now())",
)
DELIVERY = Command(
    "d",
    "INSERT INTO app.alert_delivery (id, alert_id, rule_id, kind, target, event, body)"
    " VALUES ($1, $2, $3, $4, $5, 'alert.firing', $6)",
)
BODY = '{"text":"Alert: R &amp; D","url":"http://here/alerts"}'
QUICK = (0.01, 0.02)
ANA = Actor("ana", None)


class Queue:
    """A rule with an alert, and messages about it."""

    def __init__(self, database):
        self.database = database
        self.secret = new_secret()
        self.rule, self.alert = uuid4(), uuid4()
        self.feeds = []

    def moved(self):
        """Announce a change, as the listener of a node does."""
        for feed in self.feeds:
            feed.moved("app.alert_delivery")

    async def replay(self, name):
        again = await replay(self.database, name, ANA)
        self.moved()
        return again

    async def begin(self):
        metric = await store_metric(self.database, "SELECT 1 AS n")
        definition = {"column": "n", "kind": "threshold", "above": 1}
        await self.database.write(RULE, self.rule, metric, definition, self.secret)
        await self.database.write(ALERT, self.alert, self.rule, metric)
        return self

    async def put(self, target, kind="webhook", body=BODY):
        name = f"msg_{uuid4().hex}"
        await self.database.write(DELIVERY, name, self.alert, self.rule, kind, target, body)
        self.moved()
        return name

    async def row(self, name):
        async with self.database.transaction() as tx:
            return await tx._connection.fetchrow("SELECT * FROM app.alert_delivery WHERE id = $1", name)

    async def in_state(self, name, wanted):
        async def found():
            row = await self.row(name)
            return row if row["status"] == wanted else None

        return await until(found)


@pytest.fixture
async def queue(clone):
    return await Queue(clone).begin()


@asynccontextmanager
async def delivering(queue, *, allow_private=True, timeout_s=5.0, smtp=None, pauses_s=QUICK):
    feed = ChangeFeed()
    feed.silent_since = None
    queue.feeds.append(feed)
    async with (
        Webhooks(allow_private=allow_private, timeout_s=timeout_s) as webhooks,
        Mail(smtp, "t@here.org") as mail,
    ):
        deliverer = Deliverer(queue.database, webhooks, mail, lambda: datetime.now(UTC), pauses_s=pauses_s)
        task = asyncio.create_task(deliverer.keep(feed.subscribe(["app.alert_delivery"])))
        try:
            yield
        finally:
            queue.feeds.remove(feed)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def test_the_first_retry_comes_soon_and_there_are_at_least_three_tries():
    assert PAUSES_S[0] < 5
    assert len(PAUSES_S) >= 2
    assert sorted(PAUSES_S) == list(PAUSES_S)


async def test_a_receiver_that_fails_gets_the_same_body_and_id_again(queue):
    def twice(receiver, _request):
        return status(500) if len(receiver.requests) < 3 else status(200)

    async with receiving(twice) as receiver, delivering(queue):
        name = await queue.put(receiver.url)
        await queue.in_state(name, "delivered")
    assert [each.body for each in receiver.requests] == [BODY.encode()] * 3
    assert {each.headers["webhook-id"] for each in receiver.requests} == {name}
    for each in receiver.requests:
        signed = signature(queue.secret, name, each.headers["webhook-timestamp"], BODY)
        assert each.headers["webhook-signature"] == signed
    assert (await queue.row(name))["tries"] == 3


async def test_a_message_that_nobody_takes_is_kept_and_can_be_replayed(queue):
    async with receiving(lambda *_: status(503)) as receiver, delivering(queue):
        name = await queue.put(receiver.url)
        dead = await queue.in_state(name, "dead")
        assert (dead["tries"], dead["last_error"]) == (3, "answered 503")
        receiver.answer = lambda *_: status(200)
        again = await queue.replay(name)
        assert (again.status, again.tries) == ("waiting", 0)
        await queue.in_state(name, "delivered")
    assert {(each.body, each.headers["webhook-id"]) for each in receiver.requests} == {(BODY.encode(), name)}
    with pytest.raises(Conflict):
        await replay(queue.database, name, ANA)
    with pytest.raises(NotFound):
        await replay(queue.database, "msg_none", ANA)


async def test_redirects_are_not_followed(queue):
    async with receiving() as other:
        redirect = status(302, f"Location: {other.url}")
        async with receiving(lambda *_: redirect) as receiver, delivering(queue):
            name = await queue.put(receiver.url)
            dead = await queue.in_state(name, "dead")
    assert dead["last_error"] == "answered 302; redirects are not followed"
    assert other.requests == []


async def test_receivers_that_hang_keep_no_others_waiting(queue):
    async with (
        receiving(lambda *_: None) as hanging,
        receiving() as receiver,
        delivering(queue, timeout_s=30),
    ):
        for _ in range(20):
            await queue.put(hanging.url)
        await until(lambda: len(hanging.requests) >= 4)
        name = await queue.put(receiver.url)
        await queue.in_state(name, "delivered")
        assert len(hanging.requests) <= 8


async def test_a_receiver_that_answers_late_is_tried_again_and_one_in_time_is_not(queue):
    release = asyncio.Event()

    async def late():
        await release.wait()
        return status(200)

    async with receiving(lambda *_: late()) as receiver, delivering(queue, timeout_s=20):
        name = await queue.put(receiver.url)
        await until(lambda: receiver.requests)
        release.set()
        row = await queue.in_state(name, "delivered")
    assert row["tries"] == len(receiver.requests) == 1
    async with receiving(lambda *_: None) as receiver, delivering(queue, timeout_s=0.2):
        name = await queue.put(receiver.url)
        dead = await queue.in_state(name, "dead")
    assert dead["last_error"] == "no answer within 0.2 s"
    assert len(receiver.requests) == 3


async def test_private_addresses_are_refused_before_a_connection(queue):
    async with receiving() as receiver, delivering(queue, allow_private=False):
        port = receiver.url.split(":")[2]
        for host in ("127.0.0.1", "localhost", "2130706433", "[::ffff:127.0.0.1]"):
            name = await queue.put(f"http://{host}:{port}")
            dead = await queue.in_state(name, "dead")
            assert dead["tries"] == 1
            assert "WEBHOOK_PRIVATE=on" in dead["last_error"]
    assert receiver.requests == []


async def test_the_connection_goes_to_the_address_that_was_checked(queue, monkeypatch):
    loop = asyncio.get_running_loop()
    genuine = loop.getaddrinfo
    asked = []

    async def resolve(host, port, **options):
        if host != "hook.example.org":
            return await genuine(host, port, **options)
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else "192.0.2.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(loop, "getaddrinfo", resolve)
    async with receiving() as receiver, delivering(queue):
        port = receiver.url.split(":")[2]
        name = await queue.put(f"http://hook.example.org:{port}")
        await queue.in_state(name, "delivered")
    assert asked == ["hook.example.org"]
    (request,) = receiver.requests
    assert request.headers["host"] == f"hook.example.org:{port.split('/')[0]}"


async def test_one_private_address_among_public_ones_is_enough_to_refuse(monkeypatch):
    loop = asyncio.get_running_loop()

    async def resolve(_host, port, **_options):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in ("8.8.8.8", "10.0.0.1")]

    monkeypatch.setattr(loop, "getaddrinfo", resolve)
    async with Webhooks(allow_private=False) as webhooks:
        with pytest.raises(Exception, match=r"private address 10\.0\.0\.1"):
            await webhooks.post("https://hook.example.org/", b"{}", {})


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),  # noqa: S104 (an address to judge)
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("fec0::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::808:808", True),
        ("2002:7f00:1::", False),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", False),
    ],
)
def test_which_addresses_are_public(address, public):
    assert is_public(address) is public


async def test_two_nodes_send_each_message_once(queue):
    async with receiving() as receiver, receiving() as other:
        names = [await queue.put(url) for url in (receiver.url, other.url) for _ in range(30)]
        async with delivering(queue), delivering(queue):
            for name in names:
                await queue.in_state(name, "delivered")
    sent = [each.headers["webhook-id"] for each in (*receiver.requests, *other.requests)]
    assert sorted(sent) == sorted(names)


async def test_what_a_dead_node_had_claimed_is_sent_by_another(queue):
    async with receiving() as receiver:
        name = await queue.put(receiver.url)
        claimed = "UPDATE app.alert_delivery SET tries = 1, next_try_at = now() + interval '300 ms'"
        await queue.database.write(Command("c", claimed))
        async with delivering(queue):
            row = await queue.in_state(name, "delivered")
    assert row["tries"] == 2


async def test_mails_are_sent_and_failures_tried_again(queue):
    async with taking_mail() as box, delivering(queue, smtp=f"smtp://127.0.0.1:{box.port}"):
        box.refuses = "450 later"
        name = await queue.put("ana@here.org,bo@here.org", kind="email")
        dead = await queue.in_state(name, "dead")
        assert "later" in dead["last_error"]
        assert dead["tries"] == 3
        box.refuses = ""
        await queue.replay(name)
        await queue.in_state(name, "delivered")
        (mail,) = box.mails
    assert "Subject: Alert: R & D" in mail
    assert "To: ana@here.org, bo@here.org" in mail
    assert f"<{name}@here.org>" in mail
    assert "http://here/alerts" in mail


async def test_without_a_mail_server_the_error_says_so(queue):
    async with delivering(queue):
        name = await queue.put("ana@here.org", kind="email")
        assert (await queue.in_state(name, "dead"))["last_error"] == "SMTP_URL is not set"


def alert_of(**labels):
    scene = Scene(kind="threshold", above=100)
    scene.see(scene.daily(5))
    scene.see(scene.daily(5, 200, channel=labels.get("channel", "Email")))
    (alert,) = scene.alerts.values()
    return scene.row.rule(), alert


def test_texts_cannot_mention_people_or_make_links():
    rule, alert = alert_of(channel="<!channel> @all [x](http://evil) \n second & <http://evil|here>")
    text = text_of(rule, alert)
    assert "\n" not in text
    assert "<" not in text
    assert "@all" not in text
    assert "](" not in text
    assert "&amp;" in text


def test_a_message_is_json_with_a_text_and_cloudevents_headers():
    rule, alert = alert_of()
    rule = type(rule)(
        **{name: getattr(rule, name) for name in rule.__struct_fields__}
        | {"webhook_url": "https://hook.example.org", "email": ("ana@here.org",)}
    )
    now = datetime(2025, 8, 2, tzinfo=UTC)
    hook, mail = messages(rule, alert, "firing", now, "http://here/alerts")
    assert (hook.kind, mail.kind) == ("webhook", "email")
    assert hook.body == mail.body
    given = headers(
        Message("msg_1", "webhook", "", "alert.firing", hook.body),
        secret=None, created_at=now, sent_at=now, rule_id=rule.id, alert_id=alert.id,
    )  # fmt: skip
    assert given["ce-type"] == "tally.alert.firing"
    assert given["ce-time"] == "2025-08-02T00:00:00Z"
    assert "webhook-signature" not in given


def test_a_signature_is_that_of_standard_webhooks():
    # The example of the specification.
    found = signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "1614265330",
        '{"test": 2432232314}',
    )
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
