"""The options of `raypool run` beside those of the pool."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from raypool.cli.batch_form import RunTerms
from raypool.cli.mapper import Mapper, imported
from raypool.cli.question import ColumnPrompt, OwnPrompt, Question
from raypool.cli.records import Format
from raypool.cli.template import Template, with_escapes

if TYPE_CHECKING:
    from raypool.output_type import OutputType

Command = TypeVar("Command", bound=Callable[..., Any])


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says about rows and files."""

    inputs: tuple[str, ...]
    output: str | None
    row_format: Format | None
    prompt_column: str | None
    template: str | None
    mapper: str | None
    schema: str | None
    output_type: str | None
    limit: int | None
    sample: int | None
    seed: int
    ledger: str | None
    restart: bool
    retry_failed: bool
    dry_run: bool
    quiet: bool
    json: bool

    def check(self) -> None:
        """Refuse options that contradict each other.

        Raises:
            click.UsageError: names them.
        """
        self._one_of("prompt_column", "template", "mapper")
        self._one_of("schema", "output_type")
        self._one_of("restart", "retry_failed")
        if self.output is None and not self.dry_run:
            raise click.UsageError("Missing option '-o' / '--output'.")

    @property
    def is_rendered(self) -> bool:
        """Whether prompts are made of the rows' fields."""
        return not (
            self.prompt_column in {None, "prompt"} and not self.template and not self.mapper
        )

    def question(self, terms: RunTerms) -> Question:
        """What makes prompts of rows.

        Raises:
            click.UsageError: it cannot be made.
        """
        if self.template is not None:
            return Template(self.template)
        if self.mapper is not None:
            return Mapper(self.mapper)
        if self.prompt_column in {None, "prompt"}:
            return OwnPrompt(terms)
        return ColumnPrompt(self.prompt_column or "")

    def answer_type(self) -> OutputType | None:
        """What every answer must be; `None` when text will do.

        Raises:
            click.UsageError: it is no type.
        """
        if self.schema is None and self.output_type is None:
            return None
        from raypool.output_type import OutputType  # noqa: PLC0415 - --help must not wait for it

        try:
            if self.output_type is not None:
                return OutputType.of(imported(self.output_type, "--output-type"))
            return OutputType.from_schema(*_schema(Path(self.schema or "")))
        except TypeError as error:
            option = "--schema" if self.output_type is None else "--output-type"
            raise click.UsageError(f"{option}: {error}") from error

    def _one_of(self, *names: str) -> None:
        given = [f"--{name.replace('_', '-')}" for name in names if getattr(self, name)]
        if len(given) > 1:
            raise click.UsageError(f"{' and '.join(given)} contradict each other: give one")


def run_options(command: Command) -> Command:
    """Give `command` the options of `RunOptions`, as keyword arguments of the same names."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def _schema(path: Path) -> tuple[str, dict[str, Any]]:
    """The name and the schema in a file."""
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise click.UsageError(f"--schema: cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"--schema: {path} is not JSON: {error}") from error
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise click.UsageError(f'--schema: {path} must be a JSON schema with "type": "object"')
    title = schema.get("title")
    return title if isinstance(title, str) else path.stem, schema


def _template(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> str | None:
    """The text with its escapes, or that of the file in `@FILE` as it stands."""
    if value is None or not value.startswith("@"):
        return value and with_escapes(value)
    try:
        return Path(value[1:]).read_text(encoding="utf-8")
    except OSError as error:
        raise click.BadParameter(f"cannot read {value[1:]}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise click.BadParameter(f"{value[1:]} is not valid UTF-8: {error}") from error


_OPTIONS = (
    click.argument("inputs", metavar="INPUT...", nargs=-1, required=True),
    click.option("-o", "--output", help="Where the results go; .parquet writes Parquet, - stdout."),
    click.option(
        "--format",
        "row_format",
        type=click.Choice(["jsonl", "text", "csv", "tsv", "parquet"]),
        help="What INPUT is.  [default: by its name; stdin by its first character]",
    ),
    click.option("--prompt-column", metavar="NAME", help="The column that has the prompts."),
    click.option(
        "--template",
        callback=_template,
        metavar="TEXT|@FILE",
        help="Make prompts of columns: 'Summarise: {title}\\n{body}'.",
    ),
    click.option(
        "--mapper",
        metavar="PKG.MOD:FUNCTION",
        help="A function that makes of a row (a dict) its prompt, messages, or None to skip it.",
    ),
    click.option(
        "--schema", metavar="FILE", help="A JSON schema that answers must fit; adds 'parsed'."
    ),
    click.option(
        "--output-type", metavar="PKG.MOD:MODEL", help="A pydantic model likewise; adds 'parsed'."
    ),
    click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N rows."),
    click.option("--sample", type=click.IntRange(min=1), metavar="N", help="Only N rows, by lot."),
    click.option(
        "--seed", type=int, default=0, show_default=True, help="Another one draws another sample."
    ),
    click.option(
        "--dry-run",
        is_flag=True,
        help="Ask nothing; say what would be asked, and about what it would cost and take.",
    ),
    click.option("--ledger", help="What a later run goes on from.  [default: OUTPUT.ledger]"),
    click.option(
        "--restart", is_flag=True, help="Start over; what is there is kept as OUTPUT.1 and so on."
    ),
    click.option("--retry-failed", is_flag=True, help="Ask the rows that failed once more."),
    click.option("--quiet", is_flag=True, help="Say only what goes wrong."),
    click.option("--json", is_flag=True, help="Say everything as JSON lines, for programs."),
)
