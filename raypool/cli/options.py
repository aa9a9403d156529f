"""The options that every command with a pool of its own has, and what they start."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from raypool.agent import RoleAgent
from raypool.cli.agent import PromptAgent
from raypool.cli.batch_form import RunTerms
from raypool.cli.problem import in_one_line
from raypool.config import Budget, RateLimit
from raypool.errors import PoolStartError

if TYPE_CHECKING:
    from raypool.backends import Backend
    from raypool.pool import Pool

Command = TypeVar("Command", bound=Callable[..., Any])

MAX_TOKENS = 1024
_ABOVE_ZERO = click.FloatRange(min=0, min_open=True)
_OTHER_BACKENDS = " (on the command line: --base-url URL, or --backend local)"


class PoolOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says about the pool; the names are `Pool.start`'s where it has them."""

    backend: str
    model: str | None
    base_url: str | None
    size: int
    concurrency: int
    role: str | None
    system: str | None
    max_tokens: int | None
    turn_timeout: float
    address: str | None
    routing: str = "round_robin"
    rpm: float | None = None
    tpm: float | None = None
    output_tpm: float | None = None
    budget_usd: float | None = None

    def check(self) -> None:
        """Refuse options that contradict each other, and bytes that are no text.

        Raises:
            click.UsageError: names them.
        """
        for name in ("model", "base_url", "role", "system"):
            if not _is_text(getattr(self, name) or ""):
                raise click.UsageError(f"--{name.replace('_', '-')} is not valid UTF-8")
        if self.role is not None and self.system is not None:
            raise click.UsageError("--role writes the system prompt: give it or --system, not both")
        if self.base_url is not None and self.backend != "anthropic":
            raise click.UsageError(f"--base-url has no meaning with --backend {self.backend}")
        if self.model is not None and self.backend == "scripted":
            raise click.UsageError("--model has no meaning with --backend scripted")

    def settings(self, backend: Backend) -> dict[str, Any]:
        """What an answer depends on; a text is represented by its digest."""
        return {
            "backend": self.backend,
            "model": getattr(backend, "model", None),
            "role": self.role,
            "system": self.system and hashlib.blake2b(self.system.encode()).hexdigest(),
            "max_tokens": self.agent_options().get("max_tokens"),
        }

    def terms(self, backend: Backend) -> RunTerms:
        """How every row of a run is asked."""
        model = getattr(backend, "model", None)
        named = model if isinstance(model, str) and self.backend == "anthropic" else self.model
        return RunTerms(named, self.system, self.agent_options().get("max_tokens"))

    def agent_options(self) -> Mapping[str, Any]:
        """What the agent is told; a role has its own `max_tokens` unless one is given."""
        if self.role is not None:
            return {} if self.max_tokens is None else {"max_tokens": self.max_tokens}
        return {"system": self.system, "max_tokens": self.max_tokens or MAX_TOKENS}


def pool_options(command: Command) -> Command:
    """Give `command` the options of `PoolOptions`, as keyword arguments of the same names."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def make_backend(options: PoolOptions) -> Backend:
    """The backend that the options name, with what the environment adds.

    Raises:
        Problem: it can be seen from here that no turn would succeed.
    """
    from raypool import backends  # noqa: PLC0415 - --help must not wait for what they import

    if options.backend == "scripted":
        return backends.ScriptedBackend()
    if options.backend == "local":
        with in_one_line(PoolStartError, ValueError):
            return backends.LocalBackend(options.model).prepare()
    with in_one_line(PoolStartError, ValueError, hint=_OTHER_BACKENDS):
        return backends.AnthropicBackend(options.model, base_url=options.base_url).prepare()


def start_pool(options: PoolOptions, backend: Backend, **more: Any) -> Pool:
    """A pool as the options say; `more` goes to `Pool.start` as it is."""
    from raypool.pool import Pool  # noqa: PLC0415 - --help must not wait for Ray

    return Pool.start(
        options.size,
        agent=PromptAgent if options.role is None else RoleAgent,
        agent_options=options.agent_options(),
        backend=backend,
        concurrency=options.concurrency,
        turn_timeout=options.turn_timeout,
        address=options.address,
        routing=options.routing,
        **_given(role=options.role, budget=_budget(options), rate_limit=_rate_limit(options)),
        **more,
    )


def _budget(options: PoolOptions) -> Budget | None:
    return None if options.budget_usd is None else Budget(usd=options.budget_usd)


def _rate_limit(options: PoolOptions) -> RateLimit | None:
    limits = (options.rpm, options.tpm, options.output_tpm)
    if limits == (None, None, None):
        return None
    return RateLimit(
        requests_per_minute=options.rpm,
        input_tokens_per_minute=options.tpm,
        output_tokens_per_minute=options.output_tpm,
    )


def _is_text(value: str) -> bool:
    """Whether it came as UTF-8: bytes that are not arrive from the shell as surrogates."""
    return value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)


def _given(**arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


def _text_or_file(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> str | None:
    """The text itself, or that of the file in `@FILE`."""
    text = value
    if value is not None and value.startswith("@"):
        try:
            text = Path(value[1:]).read_text(encoding="utf-8")
        except OSError as error:
            raise click.BadParameter(f"cannot read {value[1:]}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise click.BadParameter(f"{value[1:]} is not valid UTF-8: {error}") from error
    if text is not None and not text.strip():
        raise click.BadParameter("the system prompt is empty")
    return text


_OPTIONS = (
    click.option(
        "--backend",
        type=click.Choice(["anthropic", "local", "scripted"]),
        default="anthropic",
        show_default=True,
        help="What answers: the Messages API, a small model on this machine, or an echo.",
    ),
    click.option("--model", help="The model's name; with --backend local, a GGUF file."),
    click.option("--base-url", help="Any server that speaks the Messages API."),
    click.option(
        "--size", type=click.IntRange(min=1), default=4, show_default=True, help="Workers."
    ),
    click.option(
        "--concurrency",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Turns that one worker runs at the same time.",
    ),
    click.option(
        "--system",
        callback=_text_or_file,
        metavar="TEXT|@FILE",
        help="The system prompt; none is sent without it.",
    ),
    click.option("--role", help="Answer as this role, in one or two sentences."),
    click.option(
        "--max-tokens",
        type=click.IntRange(min=1),
        help=f"The longest answer.  [default: {MAX_TOKENS}; 150 with --role]",
    ),
    click.option(
        "--turn-timeout",
        type=float,
        default=600.0,
        show_default=True,
        metavar="SECONDS",
        help="The longest that one turn may run.",
    ),
    click.option(
        "--routing",
        type=click.Choice(["round_robin", "least_loaded", "next_free"]),
        default="round_robin",
        show_default=True,
        help="Which worker gets a row.",
    ),
    click.option(
        "--rpm",
        type=_ABOVE_ZERO,
        metavar="N",
        help="Requests a minute.  [default: as many as the provider takes]",
    ),
    click.option(
        "--tpm", type=_ABOVE_ZERO, metavar="N", help="Input tokens a minute.  [default: likewise]"
    ),
    click.option(
        "--output-tpm",
        type=_ABOVE_ZERO,
        metavar="N",
        help="Output tokens a minute.  [default: likewise]",
    ),
    click.option(
        "--budget-usd",
        type=click.FloatRange(min=0),
        metavar="USD",
        help="The most that may be spent, earlier runs on the same ledger included.",
    ),
    click.option(
        "--address",
        help="The Ray cluster.  [default: RAY_ADDRESS, else a Ray of its own on this machine]",
    ),
)
