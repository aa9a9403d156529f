"""One limit for all pools of a cluster: shares in several processes, and a governor that dies."""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import ray

from raypool.capacity.governing import LEASE_SECONDS
from raypool.clock import SystemClock
from raypool.config import RateLimit
from raypool.governor import NAMESPACE, governor_name
from raypool.governor_link import GovernorLink
from raypool.messages import Terms

KEY = "the key's fingerprint"
LIMIT = RateLimit(requests_per_minute=1200, adaptive=False)
PER_SECOND = 20.0

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("local_ray")]


@pytest.fixture
def terms() -> Terms:
    """Those of an account that no other test uses."""
    return Terms(provider=f"https://{uuid.uuid4().hex}.example", key=KEY, model="a-model")


@pytest_asyncio.fixture
async def links() -> AsyncIterator[list[GovernorLink]]:
    """Links that are closed at the end."""
    links: list[GovernorLink] = []
    yield links
    for link in links:
        await link.close()


async def start_link(terms: Terms, links: list[GovernorLink]) -> GovernorLink:
    """A link that has its first lease."""
    leased = asyncio.Event()
    link = GovernorLink(terms, LIMIT, SystemClock(), on_lease=leased.set)
    link.start()
    links.append(link)
    await leased.wait()
    return link


async def send(link: GovernorLink, until: float) -> list[float]:
    """Send as fast as the share allows; when each was sent."""
    sent = []
    while time.monotonic() < until:
        ticket = link.share.take(10, 10)
        if ticket is None:
            await asyncio.sleep(min(link.share.opens_in() or 0.01, 0.05))
            continue
        sent.append(time.monotonic())
        link.share.settle(ticket, input_tokens=10, output_tokens=10, seconds=0.1)
    return sent


def most_in_a_second(times: list[float]) -> int:
    """The most that was sent in any window of one second."""
    times = sorted(times)
    return max(sum(start <= one < start + 1 for one in times) for start in times)


def find_governor(terms: Terms) -> Any:
    return ray.get_actor(governor_name(terms), namespace=NAMESPACE)


async def share(link: GovernorLink) -> tuple[list[float], float]:
    """Send until there is another pool, and for two seconds more.

    Returns when each was sent, in seconds since the epoch, and how many a second may be.
    """
    sent = []
    async with asyncio.timeout(100):
        while link.share.status().rates.requests in (0.0, PER_SECOND):
            sent += await send(link, time.monotonic() + 0.1)
    sent += await send(link, time.monotonic() + 2.0)
    rate = link.share.status().rates.requests
    return [one - time.monotonic() + time.time() for one in sent], rate


@ray.remote(num_cpus=0)
def share_elsewhere(terms: Terms) -> tuple[list[float], float]:
    """What `share` does, in a process of its own."""

    async def run() -> tuple[list[float], float]:
        return await share(await start_link(terms, []))

    return asyncio.run(run())


async def test_pools_in_two_processes_share_one_limit(
    terms: Terms, links: list[GovernorLink]
) -> None:
    elsewhere = share_elsewhere.remote(terms)
    here = await share(await start_link(terms, links))
    there = await elsewhere

    assert most_in_a_second([*here[0], *there[0]]) <= 2 * PER_SECOND + 1
    assert [here[1], there[1]] == pytest.approx([PER_SECOND / 2] * 2, rel=0.05)


async def test_second_pool_gets_its_part_while_the_first_goes_on_sending(
    terms: Terms, links: list[GovernorLink]
) -> None:
    first = await start_link(terms, links)
    sending = asyncio.ensure_future(send(first, math.inf))
    await asyncio.sleep(0.5)
    second = await start_link(terms, links)
    sent: list[float] = []
    while len(sent) < PER_SECOND / 2:
        sent += await send(second, time.monotonic() + 0.1)
    rate = first.share.status().rates.requests
    sending.cancel()

    assert rate <= PER_SECOND / 2 * 1.5


async def test_governor_that_is_killed_stops_nobody_for_good(
    terms: Terms, links: list[GovernorLink]
) -> None:
    link = await start_link(terms, links)
    sending = asyncio.ensure_future(send(link, time.monotonic() + 2 * LEASE_SECONDS))
    await asyncio.sleep(1.0)

    ray.kill(find_governor(terms))
    killed_at = time.monotonic()
    sent = await sending

    assert most_in_a_second(sent) <= 2 * PER_SECOND + 1
    assert any(killed_at + 0.5 < one < killed_at + LEASE_SECONDS for one in sent)
    assert sent[-1] > killed_at + LEASE_SECONDS


async def test_governor_that_is_killed_is_replaced_under_its_name(
    terms: Terms, links: list[GovernorLink]
) -> None:
    await start_link(terms, links)
    killed = find_governor(terms)

    ray.kill(killed)

    async with asyncio.timeout(60):
        while True:
            await asyncio.sleep(0.1)
            try:
                if find_governor(terms)._actor_id != killed._actor_id:
                    break
            except ValueError:
                continue


async def test_governor_ends_when_its_last_pool_has_left(terms: Terms) -> None:
    link = await start_link(terms, [])

    await link.close()

    async with asyncio.timeout(60):
        while True:
            try:
                find_governor(terms)
            except ValueError:
                break
            await asyncio.sleep(0.1)


async def test_name_of_a_governor_tells_nothing_of_the_key(terms: Terms) -> None:
    other = Terms(provider=terms.provider, key="another", model=terms.model)

    assert KEY not in governor_name(terms)
    assert governor_name(terms) != governor_name(other)
