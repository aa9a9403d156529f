"""An agent stops after each draft until you have reviewed it: `python examples/checkpointer.py`."""

from collections.abc import Callable
from typing import Any

from raypool import Agent, AgentStart, Halt, Pool, Response, SessionOptions, Turn
from raypool.backends import Backend, LocalBackend

PRODUCTS = ["a folding bicycle", "a rain cape", "a bell"]


class Copywriter(Agent):
    def init_agent(self, start: AgentStart) -> SessionOptions:
        self.advice: list[str] = []
        return SessionOptions(system="You write one-sentence advertisements.", max_tokens=60)

    def pre_turn(self, turn: Turn, prompt: Any) -> str:
        return " ".join([f"Advertise {prompt}.", *self.advice])

    def handle_response(self, turn: Turn, response: Response) -> Halt:
        return Halt("a draft waits for review")

    def handle_event(self, event: Any) -> None:
        self.advice.append(event)


def main(backend: Backend, review: Callable[[str], str] = input) -> None:
    with Pool.start(1, agent=Copywriter, backend=backend) as pool:
        [worker] = pool.workers
        for product, draft in zip(PRODUCTS, pool.submit_many(PRODUCTS), strict=True):
            print(f"{product}: {draft.result().text}")
            advice = review("advice for the next ones (or just Enter): ")
            if advice:
                pool.notify(worker, advice)
            pool.resume(worker)


if __name__ == "__main__":
    main(LocalBackend())
