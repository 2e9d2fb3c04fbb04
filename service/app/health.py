"""The checks of `/health`: what readiness needs, and what else an operator should know."""

from contextlib import suppress

from msgspec import Struct

from service.api import Health
from service.database.gateway import Database
from service.database.listen import Listener
from service.database.migrate import pending
from service.database.stored_sql.login import ReaderLogin
from service.database.stored_sql.reader import Reader
from service.errors import DatabaseUnavailable
from service.http.lifecycle import Lifecycle
from service.metrics.suspensions import Suspensions
from service.results.sharing import Sharing


class Checks(Struct, frozen=True):
    database: Database
    reader: Reader
    reader_login: ReaderLogin
    listener: Listener
    sharing: Sharing | None
    suspensions: Suspensions
    lifecycle: Lifecycle

    async def run(self) -> Health:
        """All checks in full. The status is `ok` if the service is ready."""
        try:
            missing = await pending(self.database)
            checks = {"database": "ok", "migrations": f"missing: {', '.join(missing)}" if missing else "ok"}
        except DatabaseUnavailable:
            checks = {"database": "unreachable", "migrations": "unknown"}
        checks["reader"] = await self.reader_login.state()
        if self.lifecycle.is_stopping:
            checks["serving"] = "stopping: send requests elsewhere"
        ready = all(check == "ok" for check in checks.values())
        return Health("ok" if ready else "unavailable", checks | self._further())

    def _further(self) -> dict[str, str]:
        """Checks that do not affect readiness: results are right, even if statements run more often."""
        heard = self.listener.connected.is_set()
        checks = {"listening": "ok" if heard else "no announcements: each result is run again"}
        if self.sharing is not None:
            checks["sharing"] = self.sharing.state
        if states := self.reader.standbys.states:
            apart = [f"{where}: {state}" for where, state in states.items() if state != "ok"]
            checks["standbys"] = "; ".join(apart) or "ok"
        lingering, replaced = self.reader.lingering
        if lingering:
            checks["statements"] = (
                f"{lingering} went on past their cancellation, {replaced} of their places replaced"
            )
        with suppress(DatabaseUnavailable):  # the catalogue has not been loaded
            if suspended := len(self.suspensions):
                checks["metrics"] = f"{suspended} suspended"
        return checks
