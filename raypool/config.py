"""The settings of a pool: checked once at the door, then passed down whole."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, Self, TypeAlias, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from raypool.postgres_place import PostgresPlace

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PerMinute = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
HedgeAfter: TypeAlias = Seconds | Annotated[str, Field(pattern=r"^p[1-9][0-9]?$")]
"""A number of seconds, or a percentile of how long turns take, as `"p95"`."""

RoleName = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=0)]
Concurrency = Annotated[int, Field(ge=1, le=10_000)]
MailboxLimit = Annotated[int, Field(ge=1)]
RoutingOption: TypeAlias = Literal["round_robin", "least_loaded", "next_free"] | bytes
"""The name of a policy, or a user's own, packed."""

ROUTING_POLICIES = ("round_robin", "least_loaded", "next_free")


class Options(BaseModel):
    """A frozen set of options whose wrong values are one-line errors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True
    )

    def __init__(self, *given: Any, **values: Any) -> None:
        """Check the values; those without a name are the first options', in their order.

        Raises:
            ValueError: names the option, what it must be, and what came.
            TypeError: there are too many, or one is given twice.
        """
        options = list(type(self).model_fields)
        if len(given) > len(options) or not values.keys().isdisjoint(options[: len(given)]):
            raise TypeError(f"{type(self).__name__} takes each of {', '.join(options)} once")
        try:
            super().__init__(**dict(zip(options, given, strict=False)), **values)
        except ValidationError as error:
            raise ValueError(_first_problem(error, type(self))) from None


class RetryPolicy(Options):
    """How often, and after how long, a task is tried again.

    Attributes:
        max_attempts: attempts in all, the first one included.
        max_deaths: how many of a task's workers may die before it fails.
        initial_seconds: the longest first wait; it doubles with every attempt.
        max_seconds: the longest wait of all, unless the provider asks for more.
    """

    max_attempts: Annotated[int, Field(ge=1)] = 4
    max_deaths: Annotated[int, Field(ge=1)] = 3
    initial_seconds: Seconds = 0.5
    max_seconds: Seconds = 60.0


class RateLimit(Options):
    """What may be sent to a provider under one key, on the whole cluster.

    A bucket holds one second's worth of each (at least one request; a turn that is larger than
    the bucket runs it into debt), so in any window of w seconds at most w + 1 seconds' worth
    goes out.

    Attributes:
        requests_per_minute: `None` sets no limit.
        input_tokens_per_minute: likewise; tokens read from a prompt cache count as the provider
            counts them: not at all.
        output_tokens_per_minute: likewise.
        adaptive: find the provider's own limit, and stay below it, by its refusals and headers.
    """

    requests_per_minute: PerMinute | None = None
    input_tokens_per_minute: PerMinute | None = None
    output_tokens_per_minute: PerMinute | None = None
    adaptive: bool = True


class Autoscale(Options):
    """How many workers there are, by what waits.

    Attributes:
        min_size: never fewer; 0 lets the last worker go when there is nothing to do.
        max_size: never more.
        target_queued_per_worker: how many tasks may wait for each worker.
        up_delay: how long more are wanted before some are added, in seconds.
        down_delay: how long fewer are wanted before some go, in seconds.
    """

    min_size: Annotated[int, Field(ge=0)]
    max_size: Annotated[int, Field(ge=1)]
    target_queued_per_worker: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2.0
    up_delay: NotNegative = 1.0
    down_delay: NotNegative = 60.0

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.max_size < self.min_size:
            raise ValueError(
                f"max_size must be at least min_size ({self.min_size}), got {self.max_size}"
            )
        return self


class Budget(Options):
    """The most that a pool may spend, earlier runs on the same ledger included.

    What a turn can cost at most is set aside before it starts.

    Attributes:
        usd: in USD; `None` sets no limit.
        tokens: input and output tokens together; likewise.
    """

    usd: NotNegative | None = None
    tokens: Annotated[int, Field(ge=0)] | None = None


class Price(Options):
    """What a model costs, in USD per million tokens.

    Attributes:
        input_mtok: input tokens.
        output_mtok: output tokens.
        cache_read_mtok: input tokens that come from a prompt cache; `None` means `input_mtok`.
        cache_write_mtok: input tokens that are put into one; likewise.
    """

    input_mtok: NotNegative
    output_mtok: NotNegative
    cache_read_mtok: NotNegative | None = None
    cache_write_mtok: NotNegative | None = None


class RoleOptions(Options):
    """What is said of one role of a typed pool; `None` leaves it to the pool.

    Attributes:
        size: how many workers it has as the pool starts.
        concurrency: how many turns each of them runs at once.
        routing: which of them gets a task.
        mailbox_limit: how many tasks are sent to one beyond those it runs.
        rate_limit: what they may send to their provider.
        autoscale: how many there are, by what waits.
    """

    size: Count | None = None
    concurrency: Concurrency | None = None
    routing: RoutingOption | None = None
    mailbox_limit: MailboxLimit | None = None
    rate_limit: RateLimit | None = None
    autoscale: Autoscale | None = None


class RoleConfig(Options):
    """What holds for the workers of one role; a pool without typed workers has one role.

    Attributes:
        size: how many there are as the pool starts.
        concurrency: how many turns each of them runs at once.
        routing: which of them gets a task.
        mailbox_limit: how many tasks are sent to one beyond those it runs; `None` adapts.
        rate_limit: what they may send to their provider.
        autoscale: how many there are, by what waits; `None` keeps their number.
    """

    size: Count
    concurrency: Concurrency
    routing: RoutingOption
    mailbox_limit: MailboxLimit | None
    rate_limit: RateLimit
    autoscale: Autoscale | None


AGENT_OPTIONS = ("agent", "agent_options", "backend")
"""What a role of a typed pool takes beside `RoleOptions`: it is packed, and not kept here."""


class PoolConfig(Options):
    """Everything that `Pool.start` was told and that can be checked before anything starts."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    namespace: Annotated[str, Field(min_length=1)] = "raypool"
    size: Count | None = None
    roles: dict[RoleName, RoleOptions] | None = None
    role: RoleName = "research assistant"
    concurrency: Concurrency = 1
    memory: Literal["task", "worker"] = "task"
    routing: RoutingOption = "round_robin"
    mailbox_limit: MailboxLimit | None = None
    rate_limit: RateLimit = RateLimit()
    retry: RetryPolicy = RetryPolicy()
    autoscale: Autoscale | None = None
    budget: Budget | None = None
    prices: dict[str, Price] = Field(default_factory=dict)
    tenants: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        default_factory=dict
    )
    hedge_after: HedgeAfter | None = None
    hedge_share: Share = 0.05
    turn_timeout: Seconds = 600.0
    max_turns_per_task: Annotated[int, Field(ge=1)] = 50
    parse_attempts: Annotated[int, Field(ge=1)] = 3
    start_timeout: Seconds = 120.0
    max_pending: Annotated[int, Field(ge=1)] = 100_000
    ledger: str | None = None
    postgres: PostgresPlace | None = None
    temporary_ledger: str | None = None
    detached: bool = False
    worker_resources: dict[str, Any] = Field(default_factory=dict)

    @field_validator("roles", mode="before")
    @classmethod
    def _read_roles(cls, roles: Any) -> Any:
        if isinstance(roles, Mapping):
            for role in roles:
                if not isinstance(role, str) or not role:
                    raise ValueError(f"roles must name its roles, by texts, got {role!r:.80}")
            return {role: _role_options(role, given) for role, given in roles.items()}
        return roles

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.size is not None and self.roles is not None:
            raise ValueError("size or roles must be given, and not both")
        if self.roles is not None and not self.roles:
            raise ValueError("roles must name at least one role, got {}")
        if self.size is None and self.roles is None and self.autoscale is None:
            raise ValueError("size or roles must be given, and not both")
        for role, settings in self.by_role.items():
            self._check_concurrency(_named("concurrency", role, self.roles), settings.concurrency)
        return self

    def _check_concurrency(self, option: str, concurrency: int) -> None:
        if self.memory == "worker" and concurrency > 1:
            raise ValueError(
                f'{option} must be 1 with memory="worker" (its turns are one conversation), '
                f"got {concurrency}"
            )

    @property
    def crew(self) -> list[str]:
        """The role of each worker that the pool starts with, in the order of their numbers."""
        return [role for role, settings in self.by_role.items() for _ in range(settings.size)]

    @cached_property
    def by_role(self) -> dict[str, RoleConfig]:
        """What holds for each role; what it does not say is the pool's."""
        if self.roles is None:
            return {self.role: self._resolved("size", RoleOptions(size=self.size))}
        return {
            role: self._resolved(_named("size", role, self.roles), options)
            for role, options in self.roles.items()
        }

    def _resolved(self, size_option: str, options: RoleOptions) -> RoleConfig:
        autoscale = options.autoscale or self.autoscale
        return RoleConfig(
            size=_checked_size(size_option, options.size, autoscale),
            concurrency=options.concurrency or self.concurrency,
            routing=options.routing or self.routing,
            mailbox_limit=options.mailbox_limit or self.mailbox_limit,
            rate_limit=options.rate_limit or self.rate_limit,
            autoscale=autoscale,
        )


def _named(option: str, role: str, roles: object) -> str:
    """The option as it was written."""
    return option if roles is None else f"roles[{role!r}].{option}"


def _role_options(role: object, given: object) -> RoleOptions:
    """What was said of a role: how many workers, or a mapping of options."""
    if isinstance(given, RoleOptions):
        return given
    if isinstance(given, Mapping):
        known = (*RoleOptions.model_fields, *AGENT_OPTIONS)
        for option in given:
            if option not in known:
                raise ValueError(
                    f"roles[{role!r}] has no option {option!r}; it takes {', '.join(known)}"
                )
    elif not isinstance(given, int) or isinstance(given, bool):
        raise ValueError(  # noqa: TRY004 - as for every other option
            f"roles[{role!r}] must be a number of workers or a mapping of options, "
            f"got {given!r:.80}"
        )
    options = given if isinstance(given, Mapping) else {"size": given}
    try:
        return RoleOptions(**options)
    except ValueError as error:
        raise ValueError(f"roles[{role!r}].{error}") from None


def _checked_size(option: str, size: int | None, autoscale: Autoscale | None) -> int:
    """How many workers to start with; with `autoscale` as few as it allows, unless told."""
    if autoscale is None:
        if not size:
            raise ValueError(
                f"{option} must be at least 1 (with autoscale=Autoscale(min_size=0, …) "
                f"there may be none), got {size}"
            )
        return size
    if size is None:
        return autoscale.min_size
    if not autoscale.min_size <= size <= autoscale.max_size:
        raise ValueError(
            f"{option} must be within the bounds of autoscale, from {autoscale.min_size} "
            f"to {autoscale.max_size}, got {size}"
        )
    return size


def checked_sizes(
    known: Sequence[str], size: int | None, roles: Mapping[str, int] | None
) -> dict[str, int]:
    """How many workers each role is to have, of those that `Pool.scale` names.

    Raises:
        ValueError: says what it must be and what came.
    """
    if (size is None) == (roles is None):
        raise ValueError("scale takes a size or roles, and not both")
    if roles is None:
        if len(known) > 1:
            raise ValueError(
                f"scale must be told of which role: the pool has {', '.join(sorted(known))}; "
                f"scale(roles={{{known[0]!r}: {size!r}}}) scales one"
            )
        return {known[0]: _checked_count("size", size)}
    if not isinstance(roles, Mapping) or not roles:
        raise ValueError(f"roles must name how many workers of which role, got {roles!r:.80}")
    for role in roles:
        if role not in known:
            raise ValueError(
                f"roles must name roles that the pool has ({', '.join(sorted(known))}), "
                f"got {role!r:.80}"
            )
    return {role: _checked_count(f"roles[{role!r}]", count) for role, count in roles.items()}


def _checked_count(option: str, count: object) -> int:
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise ValueError(f"{option} must be a number of workers, 0 or more, got {count!r:.80}")
    return count


_SHOULD = re.compile(r"^(Input|Value|String|List|Dictionary) should ")


def _first_problem(error: ValidationError, options: type[Options]) -> str:
    """`option must be …, got …`, of the first wrong value."""
    problem = error.errors(include_url=False)[0]
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    option = _option_at(problem["loc"], options)
    if problem["type"] == "extra_forbidden":
        return f"there is no option {option!r}"
    message = _SHOULD.sub("must ", problem["msg"])
    return f"{option} {message}, got {problem['input']!r:.80}"


def _option_at(place: tuple[int | str, ...], options: type[Options]) -> str:
    """What the user would write: `prices['some-model']`; which type of a union was tried, not."""
    option, *within = place
    field = options.model_fields.get(str(option))
    is_mapping = field is not None and get_origin(field.annotation) is dict
    return f"{option}[{within[0]!r}]" if is_mapping and within else str(option)


def check_resources(resources: object) -> dict[str, Any]:
    """`worker_resources` as options of a Ray actor; workers fit anywhere by default.

    Raises:
        TypeError: it is not a mapping.
        ValueError: names the key that is not a resource.
    """
    if resources is None:
        return {"num_cpus": 0}
    if not isinstance(resources, Mapping):
        raise TypeError(f"worker_resources must be a mapping, got {resources!r:.80}")
    known = ("num_cpus", "num_gpus", "memory", "resources", "accelerator_type", "label_selector")
    for key in resources:
        if key not in known:
            raise ValueError(f"worker_resources must name {', '.join(known)}, got {key!r}")
    for key in ("num_cpus", "num_gpus", "memory"):
        amount = resources.get(key, 0)
        if not isinstance(amount, (int, float)) or amount < 0:
            raise ValueError(f"worker_resources must give a number for {key!r}, got {amount!r}")
    return {"num_cpus": 0, **resources}
