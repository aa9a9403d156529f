"""One pool used by threads, coroutines, Ray tasks and other handles at once."""

from __future__ import annotations

import asyncio
import concurrent.futures
import pickle

import pytest
import ray

from raypool import (
    InvalidTask,
    Pool,
    PoolStartError,
    PoolStopped,
    TaskCancelled,
    UnknownRole,
    UnknownTask,
)
from raypool.backends import ScriptedBackend


def test_threads_share_a_pool(echo_pool: Pool) -> None:
    def ask(thread: int) -> list[str]:
        futures = [echo_pool.submit(f"{thread} asks {n}") for n in range(100)]
        return [future.result(timeout=30).text for future in futures]

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(ask, range(8)))

    assert answers == [[f"{thread} asks {n}" for n in range(100)] for thread in range(8)]


def test_coroutines_share_a_pool(echo_pool: Pool) -> None:
    async def ask(n: int) -> str:
        return (await echo_pool.submit(f"question {n}")).text

    async def ask_all() -> list[str]:
        return await asyncio.gather(*(ask(n) for n in range(200)))

    assert asyncio.run(ask_all()) == [f"question {n}" for n in range(200)]


def test_ray_tasks_use_a_pickled_pool(echo_pool: Pool) -> None:
    @ray.remote(num_cpus=0)
    def ask(pool: Pool, n: int) -> list[str]:
        futures = pool.submit_many([f"{n} first", f"{n} second"])
        return [future.result(timeout=30).text for future in futures]

    answers = ray.get([ask.remote(echo_pool, n) for n in range(3)])

    assert answers == [[f"{n} first", f"{n} second"] for n in range(3)]


def test_connected_handle_asks_and_leaves_the_pool_running(echo_pool: Pool) -> None:
    with Pool.connect(echo_pool.name) as connected:
        answer = connected.submit("hello").result(timeout=30)
        with pytest.raises(UnknownRole, match=r"'nobody'.*trivia expert"):
            connected.submit("hello", role="nobody")

    assert answer.text == "hello"
    assert echo_pool.submit("still here").result(timeout=30).text == "still here"
    with pytest.raises(PoolStopped, match="closed"):
        connected.submit("hello")


def test_unpickled_handle_is_the_same_pool(echo_pool: Pool) -> None:
    with pickle.loads(pickle.dumps(echo_pool)) as copy:
        future = copy.submit("hello", id="pickled-task")
        assert future.result(timeout=30).text == "hello"

    assert echo_pool.poll("pickled-task").text == "hello"


def test_name_in_use_is_refused_with_the_way_to_attach(echo_pool: Pool) -> None:
    with pytest.raises(PoolStartError, match=rf"Pool\.connect\('{echo_pool.name}'\)"):
        Pool.start(1, name=echo_pool.name, backend=ScriptedBackend())


def test_unknown_pool_is_refused_with_the_way_to_start_it(local_ray: None) -> None:
    with pytest.raises(PoolStartError, match=r"no pool 'nowhere' runs.*Pool\.start"):
        Pool.connect("nowhere")


def test_known_id_gives_the_first_task_and_another_question_is_refused(echo_pool: Pool) -> None:
    first = echo_pool.submit("what is it?", id="known")
    again = echo_pool.submit("what is it?", id="known")
    other = echo_pool.submit("something else?", id="known")

    assert first.result(timeout=30) == again.result(timeout=30)
    with pytest.raises(InvalidTask, match="'known' with another prompt;"):
        other.result(timeout=30)
    assert echo_pool.submit("what is it?", id="known").result(timeout=30).text == "what is it?"
    results = [result for result in echo_pool.iter_results() if result.id == "known"]
    assert len(results) == 1


def test_future_of_a_task_that_another_handle_submitted(slow_pool: Pool) -> None:
    other = Pool.connect(slow_pool.name)
    submitted = slow_pool.submit("0.5 question", id="shared")
    assert submitted.accepted(timeout=30)

    found = other.future("shared")

    assert found.result(timeout=30).text == "0.5 question"
    assert other.future("shared").result(timeout=0).text == "0.5 question"
    with pytest.raises(UnknownTask, match="'missing'"):
        other.future("missing")
    other.close()


def test_accepted_future_knows_its_worker(echo_pool: Pool) -> None:
    futures = echo_pool.submit_many(["one", "two", "three"])

    workers = {future.worker for future in futures}

    assert workers == {f"{echo_pool.name}-{number}" for number in (1, 2, 3)}
    assert all(future.accepted(timeout=30) for future in futures)


def test_cancelling_drops_what_waits_and_interrupts_what_runs(slow_pool: Pool) -> None:
    futures = slow_pool.submit_many(["30 runs", "30 waits", "stays"])
    while slow_pool.poll(futures[0].id).state != "running":
        pass

    assert futures[0].cancel()
    assert futures[1].cancel()

    for future in futures[:2]:
        with pytest.raises(TaskCancelled) as raised:
            future.result(timeout=30)
        assert isinstance(raised.value, concurrent.futures.CancelledError)
        assert future.cancelled()
        assert slow_pool.poll(future.id).state == "cancelled"
    assert futures[2].result(timeout=30).text == "stays"
    assert not futures[2].cancel()


def test_cancelling_the_coroutine_that_awaits_cancels_the_task_unless_shielded(
    slow_pool: Pool,
) -> None:
    prompts = ["0.5 dropped", "0.5 kept", "0.5 elsewhere"]
    dropped, kept, elsewhere = slow_pool.submit_many(prompts)

    async def await_them() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(dropped, 0.1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(kept), 0.1)
        elsewhere.cancel()
        with pytest.raises(TaskCancelled):
            await elsewhere
        assert (await kept).text == "0.5 kept"

    asyncio.run(await_them())

    with pytest.raises(TaskCancelled):
        dropped.result(timeout=30)


def test_map_streams_to_loops_of_both_kinds(echo_pool: Pool) -> None:
    prompts = [f"question {n}" for n in range(50)]

    async def collect() -> list[str | None]:
        return [result.text async for result in echo_pool.map(prompts)]

    assert [result.text for result in echo_pool.map(prompts)] == prompts
    assert asyncio.run(collect()) == prompts
    assert sorted(r.text or "" for r in echo_pool.map(prompts, ordered=False)) == sorted(prompts)


def test_map_gives_failed_tasks_as_results(echo_pool: Pool) -> None:
    results = list(echo_pool.map(["good", "", "good too"]))

    assert [result.state for result in results] == ["completed", "failed", "completed"]
    assert results[1].error is not None
    assert results[1].error.type == "InvalidTask"


def test_async_with_ends_the_pool(local_ray: None) -> None:
    async def ask() -> Pool:
        async with Pool.start(1, backend=ScriptedBackend()) as pool:
            assert (await pool.submit("hello")).text == "hello"
            return pool

    assert repr(asyncio.run(ask())).endswith("stopped")


def test_client_that_was_forgotten_asks_after_its_tasks(slow_pool: Pool) -> None:
    dispatcher, client = slow_pool._client._dispatcher, slow_pool._client._id
    futures = slow_pool.submit_many(["0.3 ends while nobody listens", "1 ends later"])
    assert all(future.accepted(timeout=30) for future in futures)

    ray.get(dispatcher.leave.remote(client))

    assert [future.result(timeout=30).text for future in futures] == [
        "0.3 ends while nobody listens",
        "1 ends later",
    ]
