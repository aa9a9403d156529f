"""What a worker's turns are limited and priced by, as far as its backend and agent tell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from raypool.agent import SessionOptions
from raypool.backends.base import Account
from raypool.backends.session_schemas import answer_schema, tool_schemas
from raypool.config import Price
from raypool.messages import Terms
from raypool.prices import cost_usd
from raypool.usage import Usage

CHARACTERS_PER_TOKEN = 4


def terms_of(backend: Any, options: SessionOptions, prices: Mapping[str, Price]) -> Terms:
    """The terms of turns that are held with `options`; the backend may lack what is optional.

    Raises:
        TypeError: the backend's `account` gives no `Account`.
    """
    name_account = getattr(backend, "account", None)
    account = name_account() if name_account else None
    if not isinstance(account, Account | None):
        raise TypeError(f"account() must return an Account or None, got {type(account).__name__}")
    named = getattr(backend, "model", None)
    model = options.model or (named if isinstance(named, str) else None)
    is_free = getattr(backend, "is_free", False) is True
    return Terms(
        provider=account.provider if account else "",
        key=account.key if account else "",
        model=model,
        max_tokens=options.max_tokens,
        overhead_tokens=_overhead_tokens(options),
        is_priced=is_free or _has_price(model, prices),
        backend=type(backend).__name__,
    )


def _has_price(model: str | None, prices: Mapping[str, Price]) -> bool:
    return model is not None and cost_usd(model, Usage(), prices) is not None


def _overhead_tokens(options: SessionOptions) -> int:
    """About how many tokens the system prompt, the tools and the answer's schema have."""
    parts = [json.dumps(schema) for schema in tool_schemas(options)]
    schema = answer_schema(options)
    parts += [json.dumps(schema)] if schema else []
    return sum(map(len, [options.system or "", *parts])) // CHARACTERS_PER_TOKEN
