"""The page Ask: a question becomes SQL and a chart, and goes to a dashboard; a refusal shows what works."""

from tests.browser.dashboards import api, visit
from tests.waiting import until

__all__ = ["api", "visit"]  # fixtures


async def ask(visit, question: str, **options):
    tab = await visit("/ask", wait=False, **options)
    await tab.page.get_by_label("A question about the data").fill(question)
    await tab.page.get_by_role("button", name="Ask").click()
    return tab


async def test_an_answer_is_understood_shown_and_added_as_it_was_shown(visit, api):
    tab = await ask(visit, "number of customers by occupation")
    page = tab.page
    answer = page.get_by_role("region", name="Answer")
    await tab.shows(answer, "Understood as")
    assert "q=number%20of%20customers%20by%20occupation" in page.url
    await answer.get_by_text("SQL", exact=True).click()
    sql = await answer.locator("pre").inner_text()
    assert sql.startswith("SELECT")
    assert await answer.locator(".plot").is_visible()
    await answer.get_by_label("Title").fill("Who they are")
    await answer.get_by_label("Dashboard").select_option("default")
    await answer.get_by_role("button", name="Add to the dashboard").click()
    await tab.shows(answer, "Added to")
    metrics = (await api.get("/dashboards/default")).json()["items"]
    [made] = [each["id"] for each in metrics if each["title"] == "Who they are"]
    assert (await api.get(f"/metrics/{made}/definition")).json()["sql"] == sql
    await answer.get_by_role("link").click()
    await tab.settled()
    assert await tab.tile(made).locator(".plot").is_visible()


async def test_a_refusal_names_the_word_and_shows_questions_that_work_as_buttons(visit):
    tab = await ask(visit, "how many flurbs were there")
    page = tab.page
    await tab.shows(page.get_by_role("alert"), "“flurbs” is not known here")
    buttons = page.locator(".suggestions button")
    assert await buttons.count() == 3
    question = await buttons.first.inner_text()
    await buttons.first.click()
    await tab.shows(page.get_by_role("region", name="Answer"), "Understood as")
    assert await page.get_by_label("A question about the data").input_value() == question
    await page.go_back()
    await tab.shows(page.get_by_role("alert"), "flurbs")


async def test_a_question_in_the_address_is_asked_and_is_text_whatever_it_says(visit):
    tab = await visit("/ask?q=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E", wait=False)
    await tab.shows(tab.page.locator("#answer"), "not understood")
    assert await tab.page.locator("#answer img").count() == 0
    assert (
        await tab.page.get_by_label("A question about the data").input_value()
        == "<img src=x onerror=alert(1)>"
    )


async def test_of_two_questions_the_later_one_is_answered(visit):
    tab = await visit("/ask", wait=False)
    page = tab.page
    held: list = []

    async def hold_first(route):
        held.append(route)
        if len(held) > 1:
            await route.continue_()

    await page.route("**/metrics/ask", hold_first)
    field = page.get_by_label("A question about the data")
    await field.fill("number of customers by occupation")
    await field.press("Enter")

    async def is_held() -> bool:
        return len(held) == 1

    await until(is_held)
    await field.fill("how many external interactions per month")
    await field.press("Enter")
    answer = page.get_by_role("region", name="Answer")
    await tab.shows(answer, "external interactions")
    assert "occupation" not in await answer.inner_text()
