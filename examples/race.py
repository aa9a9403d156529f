"""Three workers race for one answer, then vote on another: `python examples/race.py`."""

from raypool import Pool, TaskFailed
from raypool.backends import Backend, LocalBackend

QUESTION = "Name a city in Italy."
POLL = "Is water wet? Answer yes or no."


def main(backend: Backend) -> None:
    with Pool.start(3, role="quick thinker", backend=backend) as pool:
        race = pool.first(QUESTION, n=3)
        print("first:", race.result().text)
        print("not needed:", len(race.losers()))

        vote = pool.quorum(POLL, n=3, agree=2, key=lambda answer: "yes" in answer.text.lower())
        try:
            print("agreed:", vote.result().text)
        except TaskFailed as error:
            print("no agreement:", error.cause.message)


if __name__ == "__main__":
    main(LocalBackend())
