"""A browser's side of the pages, for tests without one: cookies, and what a browser says of each request."""

from tests.http.conftest import SECRET

PAGE = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"}
OWN = {"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"}
COOKIE = "tally_8000"


async def signed_in(client, client_id="poller", secret=SECRET, **fields):
    """The headers of a browser that has signed in by the form."""
    client.cookies.clear()
    form = {"client_id": client_id, "client_secret": secret, **fields}
    answer = await client.post("/sign-in", data=form, headers=PAGE | OWN)
    assert answer.status_code == 303, answer.text
    value = answer.cookies[COOKIE]
    client.cookies.clear()
    return {"Cookie": f"{COOKIE}={value}", "Sec-Fetch-Site": "same-origin"}
