"""A researcher asks itself the next question, and sums up: `python examples/research_chain.py`."""

from raypool import Agent, AgentStart, Decision, Pool, Prompt, Response, SessionOptions, Turn
from raypool.backends import Backend, LocalBackend

TOPIC = "Why is the sky blue?"


class Researcher(Agent):
    most_questions: int

    def init_agent(self, start: AgentStart) -> SessionOptions:
        self.most_questions = start.options["most_questions"]
        return SessionOptions(
            system="You are a researcher. Answer in two sentences.", max_tokens=100
        )

    def handle_response(self, turn: Turn, response: Response) -> Decision:
        if turn.number < self.most_questions:
            return Prompt("Which question does that leave open? Ask it, then answer it.")
        if turn.number == self.most_questions:
            return Prompt("Sum up everything you found in one sentence.")
        return None


def main(backend: Backend) -> None:
    with Pool.start(
        1,
        agent=Researcher,
        agent_options={"most_questions": 3},
        max_turns_per_task=10,
        backend=backend,
    ) as pool:
        future = pool.submit(TOPIC)
        print("summary:", future.result().text)
        result = pool.poll(future.id)
        print(f"{result.turns} turns, {result.usage.output_tokens} tokens written")


if __name__ == "__main__":
    main(LocalBackend())
