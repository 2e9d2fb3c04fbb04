"""Open the parts of the service in order, run what runs in the background, close all in reverse."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from typing import Any, Final

from litestar import Litestar

from service.app.alerting import open_outlets
from service.app.services import Base, Services, connect
from service.auth import sessions
from service.dashboard import links
from service.database.driver import ignore_cancelled_connects
from service.database.gateway import open_database
from service.database.listen import Handlers, Positions
from service.database.session import Session
from service.database.stored_sql.reader import open_reader
from service.errors import Problem
from service.live.hot import HotResults
from service.live.keeper import CLIENT_TABLES, Keeper
from service.metrics import catalog
from service.observe.trace import Traces
from service.outbound import Outbound
from service.results import changes
from service.results.feed import Subscription

LISTEN_WAIT_S: Final = 2.0


@asynccontextmanager
async def opened(app: Litestar) -> AsyncGenerator[None]:
    """Open everything that lives as long as the app, and close it at the end."""
    base: Base = app.state.base
    config, outgoing = base.settings.database, base.settings.outbound
    assert config.url, "checked by configured"
    direct = config.direct_url or ""
    assert config.reader_url, "checked by configured"
    ignore_cancelled_connects()
    async with (
        open_database(config.url, pooled=config.listen_url is not None, breaker=base.primary) as database,
        aclosing(Session(direct, "tally poll", changes.POLL_DEADLINE_S, base.primary)) as session,
        open_reader(config.reader_url, config, base.observe, base.reader_server) as reader,
        Outbound(
            timeout_s=outgoing.timeout_s, cooldown_s=outgoing.cooldown_s, traces=base.traces
        ) as outbound,
        _sending(base.traces),
        open_outlets(base.settings, direct, base.primary) as alert_outlets,
    ):
        app.state.services = services = connect(
            base, database=database, session=session, reader=reader, outbound=outbound, outlets=alert_outlets
        )
        # Subscribe before the first read, so that no change between is missed.
        live, results = services.streams, base.results
        keeper = Keeper(live.hub, live.rights, database, base.settings.live.heartbeat_s)
        hot = HotResults(results, base.settings.live.hot_for_s)
        with (
            results.subscribe(catalog.TABLES) as catalogue,
            results.subscribe() as data,
            results.subscribe() as changed,
            results.subscribe(CLIENT_TABLES) as clients,
            results.subscribe((*sessions.TABLES, *links.TABLES)) as ended,
        ):
            with suppress(Problem):  # the service starts anyway, and becomes ready later
                await services.catalog.load()
                await services.changes.poll()
            if base.sharing is not None:
                await base.sharing.connect()
            async with _running(
                base,
                services.catalog.keep(catalogue),
                services.schema_cache.keep(data),
                hot.keep(changed),
                services.exporter.missing.keep(),
                keeper.keep(),
                _keep_sessions(services, base, ended),
                keeper.keep_clients(clients),
                services.changes.keep(services.executor.redefined),
                *(
                    (*services.alerting.runners(live.hub.set_open_alerts), services.recorder.keep())
                    if base.alerts
                    else ()
                ),
                services.reader_login.watch(services.executor.locked_out),
                reader.standbys.keep(partial(results.generations.proofs.requirement, ())),
                services.monitor.keep(),
            ):
                yield
                await live.hub.close()
                await services.executor.close()
                await base.results.close()
        if base.sharing is not None:
            await base.sharing.close()
        await base.tokens.close()


async def _keep_sessions(services: Services, base: Base, ended: Subscription) -> None:
    async for _ in ended:
        base.sessions.forget()
        services.links.forget()


@asynccontextmanager
async def _sending(traces: Traces) -> AsyncGenerator[None]:
    """Send traces, if there is a collector. The worker's process has begun: threads do not outlive a fork."""
    traces.start()
    try:
        yield
    finally:
        await traces.stop()


@asynccontextmanager
async def _running(base: Base, *runners: Coroutine[Any, Any, None]) -> AsyncGenerator[None]:
    """Run these and the listener in the background."""
    results = base.results
    wal = bool(base.settings.database.replica_urls)
    positions = None
    if base.sharing or wal:
        positions = Positions(results.asking, results.generations.proofs.seen, wal)
    handlers = Handlers(results.announced, results.silent, results.heard, positions)
    breakers = [each.keep() for each in {base.primary, base.reader_server}]
    background = [*breakers, *runners, base.listener.run((catalog.CHANNEL, changes.CHANNEL), handlers)]
    if base.settings.auth.mode == "on":
        background.append(base.tokens.watch())
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each) for each in background]
        with suppress(TimeoutError):  # results from before the listener connects would run again
            async with asyncio.timeout(LISTEN_WAIT_S):
                await base.listener.connected.wait()
        yield
        for task in tasks:
            task.cancel()
