"""A turn that takes too long is asked again, shorter: `python examples/asking_again.py`."""

from raypool import (
    Agent,
    AgentStart,
    Decision,
    Pool,
    Prompt,
    SessionOptions,
    Task,
    TaskFailed,
    Turn,
    TurnTimeout,
)
from raypool.backends import Backend, LocalBackend

TOPICS = ["the Moon", "the Sun"]
MOST_TURNS = 3


class Lecturer(Agent):
    def init_agent(self, start: AgentStart) -> SessionOptions:
        return SessionOptions(system="You are a lecturer in astronomy.", max_tokens=1000)

    def handle_error(self, turn: Turn, error: TaskFailed) -> Decision:
        if isinstance(error, TurnTimeout) and turn.number < MOST_TURNS:
            return Prompt(f"What is {turn.task.metadata}? Answer in one sentence.")
        return None


def main(backend: Backend) -> None:
    with Pool.start(1, agent=Lecturer, backend=backend, turn_timeout=3.0) as pool:
        tasks = [Task(f"Explain {topic} in every detail.", metadata=topic) for topic in TOPICS]
        for result in pool.map(tasks):
            print(f"{result.prompt} -> {result.state}: {result.text or result.error}")


if __name__ == "__main__":
    main(LocalBackend())
