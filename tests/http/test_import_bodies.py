"""Bodies of imports: media types, codings, forms; and who waits for whom."""

import asyncio
import gzip

import httpx
import pytest

CUSTOMERS = b"Customer_Id,Occupation,Type\n1,Smith,B2B\n2,Baker,B2C\n"
PATH = "/api/v1/imports/customers"


@pytest.mark.parametrize(
    "sent", ["image/png", "application/pdf", "text/html", "application/zip", "video/mp4"]
)
async def test_what_is_no_table_is_415(client: httpx.AsyncClient, sent):
    raw = await client.post(PATH, content=CUSTOMERS, headers={"content-type": sent})
    form = await client.post(PATH, files={"file": ("a.csv", CUSTOMERS, sent)})
    assert [(each.status_code, each.json()["code"]) for each in (raw, form)] == [
        (415, "unsupported-media-type")
    ] * 2


async def test_415_is_documented(client: httpx.AsyncClient):
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert "415" in paths["/api/v1/imports/{target}"]["post"]["responses"]


async def test_a_gzipped_body_is_unpacked(client: httpx.AsyncClient):
    packed = gzip.compress(CUSTOMERS[:40]) + gzip.compress(CUSTOMERS[40:])
    answer = await client.post(PATH, content=packed, headers={"content-encoding": "gzip"})
    assert (answer.status_code, answer.json()["inserted"]) == (201, 2)


@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        ("br", CUSTOMERS, 415),
        ("deflate", CUSTOMERS, 415),
        ("gzip, gzip", CUSTOMERS, 415),
        ("gzip", CUSTOMERS, 422),
        ("gzip", gzip.compress(CUSTOMERS)[:-9], 422),
        ("gzip", gzip.compress(b" " * (101 << 20), 1), 413),
        ("identity", CUSTOMERS, 201),
    ],
    ids=["br", "deflate", "twice", "not gzip", "cut", "a bomb", "identity"],
)
async def test_other_codings_are_refused(*, client: httpx.AsyncClient, coding, body, status):
    answer = await client.post(PATH, content=body, headers={"content-encoding": coding})
    assert answer.status_code == status, answer.text


async def test_two_files_are_refused(client: httpx.AsyncClient):
    files = [("file", ("a.csv", CUSTOMERS)), ("file", ("b.csv", CUSTOMERS))]
    for second in (files[1], ("other", ("b.csv", CUSTOMERS))):
        answer = await client.post(PATH, files=[files[0], second])
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "file")
    assert (await client.get("/api/v1/imports")).json()["items"] == []


async def test_a_form_is_taken_in_pieces_and_its_texts_are_passed_over(client: httpx.AsyncClient):
    form = (
        b'--x\r\nContent-Disposition: form-data; name="note"\r\n\r\n' + b"n" * 100_000 + b"\r\n--x\r\n"
        b'Content-Disposition: form-data; name="file"; filename="C:\\crm\\a.csv"\r\n'
        b"Content-Type: text/csv; charset=windows-1251\r\n\r\n"
        + "Customer_Id,Occupation,Type\n7,Инженер,a\n".encode("cp1251")
        + b"\r\n--x--\r\n"
    )

    async def pieces():
        for at in range(0, len(form), 997):
            yield form[at : at + 997]

    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = await client.post(PATH, content=pieces(), headers=headers)
    report = answer.json()
    assert (answer.status_code, report["source"], report["encoding"]) == (201, "a.csv", "cp1251")
    cut = await client.post(PATH, content=form[:-20], headers=headers)
    assert cut.status_code == 422


async def test_an_export_that_comes_back_as_it_is_changes_nothing(client: httpx.AsyncClient):
    rows = b'x,\t=1+1,a\n9,"a" b,c\nBad\xff,B\xc3\xbcro,c\n'
    await client.post(PATH, content=b"customer_id,occupation,type\n" + rows)
    exported = await client.get("/api/v1/quarantine/export?dataset=customers")
    assert exported.headers["content-type"].lower().count("charset") == 1
    assert "'\t=1+1" in exported.text
    before = (await client.get("/api/v1/quarantine")).json()["items"]
    report = (await client.post(PATH, content=exported.content)).json()
    after = (await client.get("/api/v1/quarantine")).json()["items"]
    assert (report["quarantined"], report["inserted"]) == (3, 0)
    assert [each["raw"] for each in after] == [each["raw"] for each in before]
    assert {each["status"] for each in after} == {"open"}


async def test_nothing_waits_behind_imports_that_queue(client: httpx.AsyncClient, clone):
    async with clone.transaction() as tx:
        await tx._connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('tally import customers', 0))"
        )
        waiting = [
            asyncio.create_task(client.post(PATH, content=CUSTOMERS + b"%d,a,b\n" % n)) for n in range(3, 15)
        ]
        for path in ("/health/ready", "/api/v1/metrics", "/api/v1/audit", "/api/v1/quarantine"):
            assert (await client.get(path)).status_code == 200
        assert not any(task.done() for task in waiting)
    assert {(await task).status_code for task in waiting} == {201}
