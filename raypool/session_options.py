"""What an agent says of its conversations, checked before the first of them."""

from __future__ import annotations

from raypool.agent import SessionOptions


def checked_options(returned: object) -> SessionOptions:
    """The options that `init_agent` has returned; `None` means the defaults.

    Tools and the output type are checked where they are read.

    Raises:
        TypeError, ValueError: names the option, what it must be, and what came.
    """
    if returned is None:
        return SessionOptions()
    if not isinstance(returned, SessionOptions):
        raise TypeError(
            f"init_agent must return SessionOptions or None, got {type(returned).__name__}"
        )
    _check_text("system", returned.system)
    _check_text("model", returned.model)
    _check_count("max_tokens", returned.max_tokens)
    if returned.parse_attempts is not None:
        _check_count("parse_attempts", returned.parse_attempts)
    return returned


def _check_text(option: str, value: object) -> None:
    if not isinstance(value, str | None):
        raise TypeError(
            f"SessionOptions: {option} must be a text or None, got {type(value).__name__}"
        )


def _check_count(option: str, value: object) -> None:
    wanted = f"SessionOptions: {option} must be a whole number of at least 1"
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{wanted}, got {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{wanted}, got {value}")
