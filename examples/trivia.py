"""Three trivia experts share nine questions: `python examples/trivia.py`."""

from raypool import Pool
from raypool.backends import Backend, LocalBackend

QUESTIONS = [
    "capital of France?",
    "who wrote Hamlet?",
    "first president of the US?",
    "speed of light in vacuum?",
    "chemical symbol for gold?",
    "tallest mountain on Earth?",
    "largest ocean?",
    "year WWII ended?",
    "composer of the Ninth Symphony?",
]


def main(backend: Backend) -> None:
    with Pool.start(3, role="trivia expert", backend=backend) as pool:
        pool.submit_many(QUESTIONS)
        pool.wait_for_all(timeout=120)
        for worker in pool.results():
            print(worker.worker, worker.count, [result.text for result in worker.results])


if __name__ == "__main__":
    main(LocalBackend())
