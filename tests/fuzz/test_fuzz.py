"""Thousands of odd inputs: each ends in a result, or in an error that a person can read.

`RAYPOOL_FUZZ_TIMES=20 python -m pytest tests/fuzz` makes twenty times as many, new in each run.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypool import Pool, Task, TaskFuture
from raypool.backends import ScriptedBackend
from raypool.cli.lines import bad_row_line
from raypool.cli.records import Format
from raypool.cli.rows import BadRow, Row
from raypool.errors import InvalidTask, RaypoolError
from raypool.ledger import KnownTask
from raypool.records import AcceptedTask, Ending
from raypool.response import Response
from raypool.sqlite_ledger import SqliteLedger
from raypool.task import check_task
from raypool.unicode import is_unicode
from tests.cli.reader import read_rows
from tests.fuzz import inputs
from tests.fuzz.inputs import BATCH, TIMES, fuzz, gathered

ROW_BATCHES = 130
TASK_BATCHES = 40
LEDGER_BATCHES = 30
SUBMITTED = 2_000
LOOKUPS = 100
COMMAND_LINES = 600
RESULT_SECONDS = 60.0
COMMAND = (sys.executable, "-c", "from raypool.cli import main; main()")

INPUTS = (2 * ROW_BATCHES + TASK_BATCHES + LEDGER_BATCHES) * BATCH + SUBMITTED + COMMAND_LINES


def test_there_are_enough() -> None:
    assert INPUTS >= 10_000


def check_readable(message: str) -> None:
    """An error is a line or two for a person."""
    assert message.strip()
    assert "Traceback" not in message
    message.encode()
    assert len(message) < 5_000


@pytest.mark.parametrize("row_format", ["jsonl", "text"])
@fuzz(ROW_BATCHES)
@given(batch=st.lists(inputs.lines, min_size=BATCH, max_size=BATCH))
def test_every_line_is_a_row_that_can_be_asked_or_says_why_not(
    row_format: Format, batch: list[bytes]
) -> None:
    rows = read_rows(b"\n".join(batch), row_format)

    for row in rows:
        if isinstance(row, BadRow):
            check_readable(row.reason)
            assert json.loads(bad_row_line(row))["error"]["message"].startswith(
                f"stdin, line {row.line}"
            )
        else:
            check_task(Task(row.prompt, id=row.id, metadata=row.fields))
    ids = Counter(row.id for row in rows if isinstance(row, Row))
    assert not ids or max(ids.values()) == 1


@fuzz(10)
@given(line=inputs.deep_lines)
def test_deep_nesting_is_no_defect(line: bytes) -> None:
    [row] = read_rows(line)

    assert isinstance(row, BadRow | Row)


odd_tasks = st.builds(
    Task,
    prompt=inputs.prompts,
    role=st.none() | inputs.python_values,
    id=st.none() | inputs.texts | inputs.python_values,
    metadata=inputs.python_values,
    timeout=st.none() | inputs.numbers | inputs.python_values,
    session=st.none() | inputs.python_values,
    stream=st.booleans() | inputs.python_values,
    priority=st.just(0) | inputs.numbers | inputs.python_values,
    tenant=st.none() | inputs.python_values,
    hedge_after=st.none() | st.sampled_from(["p0", "p95", "p100", "95"]) | inputs.python_values,
)

nearly_right = st.builds(
    Task,
    prompt=inputs.texts | st.lists(inputs.messages, max_size=2),
    id=st.none() | inputs.texts,
    metadata=inputs.json_values,
    session=st.none() | st.sampled_from(["a", "b", "\ud800", "\x00"]),
    priority=st.integers(-3, 3),
    hedge_after=st.none() | st.just("p95"),
)


@fuzz(TASK_BATCHES)
@given(batch=st.lists(odd_tasks | nearly_right, min_size=BATCH, max_size=BATCH))
def test_every_task_is_good_or_says_what_is_wrong_with_it(batch: list[Task]) -> None:
    for task in batch:
        try:
            check_task(task)
        except InvalidTask as error:
            check_readable(str(error))


unicode_texts = st.text(max_size=20) | st.sampled_from(inputs.NASTY).filter(is_unicode)
unicode_json = inputs.json_values.filter(inputs.travels)
accepted = st.builds(
    AcceptedTask,
    number=st.just(0),
    id=unicode_texts,
    prompt=unicode_texts | st.lists(st.dictionaries(unicode_texts, unicode_json, max_size=2)),
    role=st.none() | unicode_texts,
    metadata=unicode_json,
    session=st.none() | unicode_texts,
    tenant=st.none() | unicode_texts,
    priority=st.integers(-1_000_000, 1_000_000),
    timeout=st.none() | st.floats(1e-9, 1e9),
)


@pytest.fixture(scope="module")
def ledger_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "fuzz.db"


@fuzz(LEDGER_BATCHES)
@given(batch=st.lists(st.tuples(accepted, unicode_texts), min_size=BATCH, max_size=BATCH))
def test_ledger_has_every_task_and_answer_as_it_was_when_it_is_opened_again(
    ledger_path: Path, batch: list[tuple[AcceptedTask, str]]
) -> None:
    kept: dict[str, KnownTask] = {}
    with closing(SqliteLedger(ledger_path)) as ledger:
        first = ledger.totals().last_number + 1
        for number, (odd, text) in enumerate(batch, start=first):
            task = msgspec.structs.replace(odd, number=number)
            known = ledger.find(task.id)
            ledger.accept([task])
            if known is None:
                ending = Ending(number, "completed", "pool-1", 1, 1_700_000_000_000, text=text)
                ledger.record([ending])
                kept[task.id] = KnownTask(task, ending)

    with closing(SqliteLedger(ledger_path)) as again:
        for task_id, expected in kept.items():
            assert repr(again.find(task_id)) == repr(expected)


@pytest.fixture(scope="module")
def pool(local_ray: None) -> Iterator[Pool]:
    with Pool.start(2, backend=ScriptedBackend()) as pool:
        yield pool


@fuzz(LOOKUPS)
@given(name=inputs.texts | inputs.python_values)
def test_no_name_of_a_task_or_worker_is_a_defect(pool: Pool, name: object) -> None:
    verbs: list[Callable[[Any], object]] = [pool.poll, pool.future, pool.interrupt, pool.resume]
    verbs.append(lambda worker: pool.notify(worker, "news"))
    for verb in verbs:
        with pytest.raises(RaypoolError) as raised:
            verb(name)
        check_readable(str(raised.value))


@pytest.mark.timeout(300 * TIMES)
def test_everything_that_is_submitted_ends_in_an_answer_or_an_error_of_raypool(pool: Pool) -> None:
    futures, refused = [], 0
    for task in gathered(nearly_right | odd_tasks, SUBMITTED):
        try:
            futures.append(_submit(pool, task))
        except RaypoolError as error:
            check_readable(str(error))
            refused += 1

    answered = 0
    for future in futures:
        try:
            assert isinstance(future.result(RESULT_SECONDS), Response)
            answered += 1
        except RaypoolError as error:
            check_readable(str(error))

    assert refused > SUBMITTED / 4, "the inputs are not odd enough"
    assert answered > SUBMITTED / 20, "the inputs are too odd"
    assert pool.submit("still there?").result(RESULT_SECONDS).text == "still there?"
    assert {worker.restarts for worker in pool.status().workers} == {0}


def _submit(pool: Pool, task: Task) -> TaskFuture:
    fields = {name: getattr(task, name) for name in task.__struct_fields__ if name != "output_type"}
    return pool.submit(**fields)


@pytest.mark.timeout(300 * TIMES)
def test_command_gives_each_line_of_an_odd_file_a_line_of_output(tmp_path: Path) -> None:
    lines = gathered(inputs.lines, COMMAND_LINES)
    (tmp_path / "odd.jsonl").write_bytes(b"\n".join(lines))
    rows = read_rows(b"\n".join(lines))

    ended = subprocess.run(
        [*COMMAND, "run", "odd.jsonl", "-o", "out.jsonl", "--backend", "scripted", "--size", "2"],
        cwd=tmp_path,
        capture_output=True,
        timeout=280 * TIMES,
        check=False,
    )

    said = ended.stderr.decode()
    assert ended.returncode == 1, said
    assert "Traceback" not in said
    assert ended.stdout == b""
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().splitlines()]
    assert len(written) == len(rows)
    for line in written:
        if "error" in line:
            check_readable(line["error"]["message"])
    assert any("usage" in line for line in written), "nothing was answered"
