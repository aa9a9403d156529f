"""What was asked, in short: the same question has the same fingerprint, in every run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from raypool.records import AcceptedTask
from raypool.task import Content

FINGERPRINT_BYTES = 16

_canonical = msgspec.json.Encoder(order="sorted").encode


class Question(Protocol):
    """What a fingerprint is of, beside the model."""

    @property
    def prompt(self) -> Content:
        """What is asked."""

    @property
    def role(self) -> str | None:
        """Who must answer."""

    @property
    def session(self) -> str | None:
        """The conversation that it continues."""

    @property
    def output_type(self) -> str | None:
        """The digest of the type that the answer must be."""


class Fingerprints:
    """Takes the fingerprints of questions that are asked of a pool.

    One is the first 16 bytes of the SHA-256 of prompt, role, session, output type and model as
    canonical JSON: sorted keys, no white space, UTF-8. The model is that of the role, or, where
    any role may answer, those of all. What a role's first worker tells is the role's model; until
    then there is none.

    Args:
        roles: those that the pool has, also without workers.

    Attributes:
        on_change: called when a role's model has become known.
    """

    def __init__(self, roles: Iterable[str] = ()) -> None:
        self.on_change: Callable[[], None] | None = None
        self._unknown = set(roles)
        self._models: dict[str, str] = {}
        self._of_any: str | None = None

    def know(self, role: str, model: str) -> None:
        """The workers of `role` answer with that model, or with what goes by that name."""
        if role in self._models:
            return
        self._models[role] = model
        self._unknown.discard(role)
        if not self._unknown:
            self._of_any = ", ".join(sorted(set(self._models.values())))
        if self.on_change is not None:
            self.on_change()

    def model(self, role: str | None) -> str | None:
        """What answers a task of that role, or of none; `None` when that is not known yet."""
        return self._of_any if role is None else self._models.get(role)

    def of(self, question: Question) -> bytes:
        """The fingerprint of `question`; empty while nobody knows what answers it."""
        model = self.model(question.role)
        if model is None:
            return b""
        asked = {
            "model": model,
            "output_type": question.output_type,
            "prompt": question.prompt,
            "role": question.role,
            "session": question.session,
        }
        return hashlib.sha256(_canonical(asked)).digest()[:FINGERPRINT_BYTES]

    def differences(self, task: AcceptedTask, question: Question, *, has_ended: bool) -> list[str]:
        """In what `question` differs from a task, for a person.

        A task that has not ended is asked of the models of this pool, whatever it was accepted for.
        """
        fingerprint = self.of(question)
        if fingerprint and fingerprint == task.fingerprint:
            return []
        fields = ("prompt", "role", "session", "output_type")
        differing = [one for one in fields if getattr(task, one) != getattr(question, one)]
        if not differing and has_ended and fingerprint and task.fingerprint:
            return ["model"]
        return [field.replace("_", " ") for field in differing]
