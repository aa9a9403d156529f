"""The user's agent and backend, packed once for every worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import cloudpickle

from raypool.agent import Agent


def pack(agent: type[Agent], agent_options: Mapping[str, Any], backend: object) -> bytes:
    """Pickle what a worker needs; only workers of the pool unpickle it.

    Raises:
        TypeError: names the option that cannot be pickled, and why.
    """
    for option, value in (
        ("agent", agent),
        ("agent_options", agent_options),
        ("backend", backend),
    ):
        try:
            cloudpickle.dumps(value)
        except Exception as error:
            raise TypeError(
                f"{option} must be something that can be pickled, to be sent to the workers: "
                f"{type(error).__name__}: {error}. Make connections, locks and open files "
                "in the worker (Agent.init_agent, Backend.open)"
            ) from error
    return cast(bytes, cloudpickle.dumps((agent, dict(agent_options), backend)))
