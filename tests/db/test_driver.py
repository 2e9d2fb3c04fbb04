"""What the driver says that is no fault stays out of the log; faults do not."""

import asyncio
import logging

import pytest
from asyncpg.connect_utils import TLSUpgradeProto

from service.database.driver import ignore_cancelled_connects


@pytest.mark.parametrize(("given_up", "logged"), [(True, 0), (False, 1)])
async def test_a_connection_that_was_given_up_is_no_error(given_up, logged, caplog):
    """The first happens when Postgres answers after the caller has left; the second is a fault."""
    ignore_cancelled_connects()
    loop = asyncio.get_running_loop()
    protocol = TLSUpgradeProto(loop, "127.0.0.1", 5432, None, ssl_is_advisory=False)
    protocol.on_data.cancel() if given_up else protocol.on_data.set_result(None)
    shown = protocol if given_up else "another protocol"
    with pytest.raises(asyncio.InvalidStateError) as caught:
        protocol.data_received(b"S")
    context = {"message": "Fatal error: protocol.data_received() call failed.", "protocol": shown}
    with caplog.at_level(logging.ERROR, "asyncio"):
        loop.default_exception_handler({**context, "exception": caught.value})
    assert len(caplog.records) == logged
