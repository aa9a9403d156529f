"""Each customer has a conversation of their own: `python examples/support_bot.py`."""

from raypool import Agent, AgentStart, Pool, SessionOptions
from raypool.backends import Backend, LocalBackend

CHAT = [
    ("ann", "Hello, my name is Ann, and my bicycle is red. Its chain squeaks."),
    ("bob", "Which tyres do I need for gravel?"),
    ("ann", "What colour did I say my bicycle is?"),
]


class SupportBot(Agent):
    def init_agent(self, start: AgentStart) -> SessionOptions:
        return SessionOptions(
            system="You help the customers of a bicycle shop. Answer in one or two sentences.",
            max_tokens=80,
        )


def main(backend: Backend) -> None:
    with Pool.start(2, agent=SupportBot, backend=backend, concurrency=8) as pool:
        for customer, message in CHAT:
            print(f"{customer}: {message}\nbot: ", end="")
            for text in pool.submit(message, session=customer, stream=True).stream():
                print(text, end="", flush=True)
            print()


if __name__ == "__main__":
    main(LocalBackend())
