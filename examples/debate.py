"""Two agents answer each other until the rounds are over: `python examples/debate.py`."""

from operator import attrgetter
from typing import Any

from raypool import Agent, AgentStart, Pool, Prompt, Response, SessionOptions, Turn
from raypool.backends import Backend, LocalBackend

OPENING = "Who is better company, a cat or a dog, and why?"
SPEECHES = 6


class Debater(Agent):
    speeches_left = 0

    def init_agent(self, start: AgentStart) -> SessionOptions:
        return SessionOptions(
            system=f"You are a {start.role} in a debate. Answer the last speaker in one sentence.",
            max_tokens=60,
        )

    def handle_event(self, event: Any) -> Prompt:
        self.speeches_left = event["speeches_left"]
        return Prompt(event["said"])

    def handle_response(self, turn: Turn, response: Response) -> None:
        if self.speeches_left > 1:
            [opponent] = [name for name in self.pool.workers if name != self.worker]
            event = {"said": response.text, "speeches_left": self.speeches_left - 1}
            self.pool.notify(opponent, event)


def main(backend: Backend) -> None:
    sides = {"cat lover": 1, "dog lover": 1}
    with Pool.start(roles=sides, agent=Debater, memory="worker", backend=backend) as pool:
        opener = next(iter(pool.workers))
        pool.notify(opener, {"said": OPENING, "speeches_left": SPEECHES})
        pool.wait_for_all()  # for all that this notification leads to
        for result in sorted(pool.iter_results(), key=attrgetter("id")):  # ids sort by time
            print(f"{result.role}: {result.text}")


if __name__ == "__main__":
    main(LocalBackend())
