"""The server's page of metrics: found where it may be, polled around a level."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from llmdyno.bench.scraper import Scraper, find
from llmdyno.records.entries import Scrape
from llmdyno.wire.target import parse_url
from scripted_server import Client, plain, scripted

PAGE = b"llmdyno_streamer_tokens_total %d\nllmdyno_streamer_completed_total 2\n"


def serving(path: str, then: Callable[[str], Awaitable[None]]) -> list[str]:
    """Serve the page at a path; return all that was asked for while `then` ran."""
    asked: list[str] = []

    async def server(client: Client) -> None:
        while True:
            await client.request()
            asked.append(client.path)
            found = client.path == path
            body = PAGE % asked.count(path)
            await client.send(plain("200 OK" if found else "404 Not Found", body if found else b""))

    async def main() -> None:
        async with scripted(server) as url:
            await then(url)

    asyncio.run(main())
    return asked


async def found(url: str, at: str = "") -> Scraper:
    scraper = await find(parse_url(url), "openai-chat", at)
    assert scraper is not None
    return scraper


@pytest.mark.parametrize(
    ("prefix", "path"), [("", "/metrics"), ("/api", "/api/metrics"), ("/api", "/metrics")]
)
def test_it_is_looked_for_beside_the_server_and_at_its_root(prefix: str, path: str) -> None:
    async def look(url: str) -> None:
        (await found(url + prefix)).close()

    assert serving(path, look)[-1] == path


def test_where_the_user_says_it_is_no_other_place_is_tried() -> None:
    async def look(url: str) -> None:
        (await found("http://127.0.0.1:1", f"{url}/own")).close()
        assert await find(parse_url(url), "openai-chat", f"{url}/nowhere") is None

    assert serving("/own", look) == ["/own", "/nowhere"]


@pytest.mark.parametrize("beside", [False, True])
def test_a_page_of_another_server_gets_no_headers_of_this_one(beside: bool) -> None:
    heads: list[bytes] = []

    async def server(client: Client) -> None:
        await client.request()
        heads.append(client.head)
        await client.send(plain("200 OK", PAGE % 1))

    async def main() -> None:
        async with scripted(server) as url:
            host = "http://127.0.0.1:1" if beside else url
            scraper = await find(parse_url(host, "sk-1"), "openai-chat", f"{url}/metrics")
            assert scraper is not None
            scraper.close()

    asyncio.run(main())

    assert (b"sk-1" in heads[0]) is not beside


def test_a_level_has_a_page_before_and_after_it_and_some_during() -> None:
    seen: list[Scrape] = []

    async def scrape(url: str) -> None:
        enough = asyncio.Event()

        def note(entry: Scrape) -> None:
            seen.append(entry)
            if len(seen) == 3:
                enough.set()

        scraper = await found(url)
        async with scraper.around(3, 0, 0.01, note), asyncio.timeout(30):
            await enough.wait()
        scraper.close()

    serving("/metrics", scrape)

    assert [entry.moment for entry in seen[:3]] == ["before", "during", "during"]
    assert seen[-1].moment == "after"
    assert {(entry.level, entry.kind) for entry in seen} == {(3, "streamer")}
    tokens = [entry.values["output_tokens"] for entry in seen]
    assert tokens == sorted(tokens)
    assert tokens[0] == 2.0  # the first page was the one it was found by


def test_nobody_there_is_no_page() -> None:
    assert asyncio.run(find(parse_url("http://127.0.0.1:1"), "openai-chat")) is None
