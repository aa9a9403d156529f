"""A turn that takes too long is asked again, shorter: `python examples/asking_again.py`."""

from typing import Any

from raypool import Agent, AgentStart, Pool, Prompt, SessionOptions, TaskFailed, TurnTimeout
from raypool.agent import Decision, Turn
from raypool.backends import Backend, LocalBackend

TOPICS = ["the Moon", "the Sun"]
MOST_TURNS = 3


class Lecturer(Agent):
    def init_agent(self, start: AgentStart) -> SessionOptions:
        return SessionOptions(system="You are a lecturer in astronomy.", max_tokens=1000)

    def pre_turn(self, turn: Turn, prompt: Any) -> None:
        if turn.number == 1:
            self.question = prompt

    def handle_error(self, turn: Turn, error: TaskFailed) -> Decision:
        if isinstance(error, TurnTimeout) and turn.number < MOST_TURNS:
            return Prompt(f"In at most five words: {self.question}")
        return None


def main(backend: Backend) -> None:
    with Pool.start(1, agent=Lecturer, backend=backend, turn_timeout=3.0) as pool:
        for result in pool.map(f"Explain {topic} in every detail." for topic in TOPICS):
            print(f"{result.prompt} -> {result.state}: {result.text or result.error}")


if __name__ == "__main__":
    main(LocalBackend())
