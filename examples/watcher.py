"""A watcher reads what happens and ends the work in time: `python examples/watcher.py`."""

from itertools import count
from threading import Event, Thread

from raypool import Pool
from raypool.backends import Backend, LocalBackend

MOST_TOKENS = 100


def watch(pool: Pool, enough: Event) -> None:
    tokens = 0
    for event in pool.events():
        if event.name == "prompt.stop":
            tokens += event.fields["output_tokens"]
            print(f"{event.worker} took {event.fields['duration_ms']:.0f} ms, {tokens} tokens now")
        elif event.name in ("prompt.error", "task.retried", "worker.died"):
            print(event)
        if tokens >= MOST_TOKENS:
            enough.set()
            return


def main(backend: Backend) -> None:
    enough = Event()
    with Pool.start(2, role="calculator", backend=backend, max_pending=4) as pool:
        watcher = Thread(target=watch, args=(pool, enough))
        watcher.start()
        results = pool.map(f"What is {number} plus {number}?" for number in count(1))
        for answered, _ in enumerate(results, start=1):
            if enough.is_set():
                print(f"{answered} answers are enough")
                break
        results.close()
        pool.wait_for_all()
        watcher.join()


if __name__ == "__main__":
    main(LocalBackend())
