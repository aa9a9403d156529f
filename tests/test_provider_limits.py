"""What a provider repeats of its limits with every answer, and what of that is news."""

from __future__ import annotations

import pytest

from raypool.provider_limits import Allowance, LimitNews, ProviderLimits


def limits(remaining: float = 500, *, limit: float = 1_000, **others: Allowance) -> ProviderLimits:
    return ProviderLimits(requests=Allowance(limit, remaining, 60.0), **others)


def is_news(news: LimitNews, said: ProviderLimits, *, is_refused: bool = False) -> bool:
    found = news.of(said, is_refused=is_refused)
    assert found in (said, None)
    return found is not None


def test_limit_is_news_once() -> None:
    news = LimitNews()

    assert is_news(news, limits(500))
    assert not is_news(news, limits(499))
    assert not is_news(news, limits(100))


def test_limit_that_changes_is_news() -> None:
    news = LimitNews()
    news.of(limits(), is_refused=False)

    assert is_news(news, limits(limit=2_000))
    assert is_news(news, limits(limit=2_000, tokens=Allowance(90, 90, 0.0)))
    assert is_news(news, limits(limit=2_000))
    assert not is_news(news, limits(limit=2_000))


@pytest.mark.parametrize(("remaining", "expected"), [(100, False), (99, True), (0, True)])
def test_less_than_a_tenth_that_remains_is_news_every_time(
    remaining: float, expected: bool
) -> None:
    news = LimitNews()
    news.of(limits(), is_refused=False)

    assert is_news(news, limits(remaining)) is expected
    assert is_news(news, limits(remaining)) is expected


def test_whatever_comes_with_a_refusal_is_news() -> None:
    news = LimitNews()
    news.of(limits(), is_refused=False)

    assert is_news(news, limits(), is_refused=True)
