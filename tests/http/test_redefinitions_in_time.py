"""A change and a locked door are noticed within 5 s by a service that looks as often as all do."""

import pytest

from tests.conftest import held
from tests.http.redefinitions import CASES
from tests.http.test_redefinitions import LOCKS, locks_out, notices, opened


@pytest.fixture(scope="module")
async def service(server, template):
    async with held(opened(server, template)) as found:
        yield found


@pytest.mark.parametrize("name", ["swap two columns", "a function in plpgsql", "a right to a column"])
async def test_a_change_is_noticed_at_the_usual_pace(service, name):
    await notices(service, *CASES[name])


async def test_a_locked_out_reader_is_noticed_at_the_usual_pace(service):
    await locks_out(service, *LOCKS["another password"])
