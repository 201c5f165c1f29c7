"""Answers that are kept to be given again."""

from __future__ import annotations

import asyncio

import pytest

from mlrs_web.daemons.cache import ENTRY_BYTES, Cache


def test_it_stays_within_its_bound() -> None:
    """Whatever is put in, the bytes stay within the bound; the answer used longest ago goes first."""
    cache = Cache(10 * (100 + ENTRY_BYTES))
    for number in range(10):
        cache.put(number, bytes(100))
    assert cache.size_bytes == cache.most_bytes
    assert cache.get(0) is not None
    cache.put(10, bytes(100))
    assert cache.get(1) is None
    assert cache.get(0) is not None
    cache.put("large", bytes(cache.most_bytes))
    assert cache.get("large") is None
    assert cache.size_bytes <= cache.most_bytes


def test_an_answer_in_place_of_another_counts_once() -> None:
    """An answer that is put in again takes the place of the one before."""
    cache = Cache(10_000)
    cache.put("a", bytes(100))
    cache.put("a", bytes(10))
    assert cache.size_bytes == 10 + ENTRY_BYTES


async def test_an_answer_is_made_once() -> None:
    """Of many that ask at the same time one makes the answer, also when the first of them leaves."""
    cache, made, go_on = Cache(10_000), 0, asyncio.Event()

    async def make() -> bytes:
        nonlocal made
        made += 1
        await go_on.wait()
        return b"answer"

    asking = [asyncio.create_task(cache.made("key", make)) for _ in range(5)]
    await asyncio.sleep(0)
    asking[0].cancel()
    go_on.set()
    assert await asyncio.gather(*asking[1:]) == [b"answer"] * 4
    assert await cache.made("key", make) == b"answer"
    assert made == 1


async def test_a_failure_is_not_kept() -> None:
    """An answer that could not be made is made when it is asked for again."""
    cache = Cache(10_000)

    async def fail() -> bytes:
        raise ConnectionError("away")

    async def make() -> bytes:
        return b"answer"

    with pytest.raises(ConnectionError):
        await cache.made("key", fail)
    assert await cache.made("key", make) == b"answer"
