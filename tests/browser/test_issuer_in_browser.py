"""Signing in at an issuer on another site: the browser keeps our cookie back until our own page asks."""

from playwright.async_api import expect

from tests.http.issuer import CLIENT, SECRET, CodeIssuer
from tests.processes import serving_seeds


async def test_a_person_goes_to_the_issuer_and_comes_back_signed_in(context, tmp_path):
    issuer = CodeIssuer(tmp_path, host="localhost")  # another site than 127.0.0.1
    await issuer.start()
    settings = {"OIDC_ISSUER": issuer.url, "OIDC_AUDIENCE": CLIENT, "OIDC_CLIENT_SECRET": SECRET}
    try:
        with serving_seeds(AUTH="on", **settings) as address:
            page = await context.new_page()
            said: list[str] = []
            page.on("console", lambda message: said.append(message.text))
            await page.goto(f"{address}/?start_date=2025-06-01")
            await page.get_by_role("link", name="Continue to sign in").click()
            await expect(page.get_by_role("button", name="Sign out")).to_be_visible()
            await expect(page.locator(".tile").first).to_be_visible()
            await expect(page.locator("#live")).to_contain_text("Live", timeout=20_000)
            assert page.url == f"{address}/?start_date=2025-06-01"
            assert said == []
            (cookie,) = await context.cookies()  # that of the flow is gone
            assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
            await page.get_by_role("button", name="Sign out").click()
            await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
            assert await context.cookies() == []
    finally:
        await issuer.stop()
