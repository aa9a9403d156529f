"""The model calls Python functions of yours; with a key, `python examples/tools.py`."""

from raypool import Agent, AgentStart, Pool, SessionOptions
from raypool.backends import AnthropicBackend, Backend

ORDERS = ["Please put three bells aside for Ann.", "Put four bells aside for Bob."]


class Storekeeper(Agent):
    def init_agent(self, start: AgentStart) -> SessionOptions:
        self.stock = {"bell": 5, "rain cape": 2}
        return SessionOptions(
            system="You keep the store of a bicycle shop. Use the tools; never guess.",
            tools=[self.in_stock, self.reserve],
        )

    def in_stock(self, item: str) -> int:
        """How many of an item are there.

        Args:
            item: the item's name, in the singular.
        """
        return self.stock.get(item, 0)

    def reserve(self, item: str, count: int) -> str:
        """Put some of an item aside.

        Args:
            item: the item's name, in the singular.
            count: how many.
        """
        if count > self.in_stock(item):
            raise ValueError(f"there are only {self.in_stock(item)} of {item}")
        self.stock[item] -= count
        return f"reserved, {self.stock[item]} left"


def main(backend: Backend) -> None:
    with Pool.start(1, agent=Storekeeper, backend=backend) as pool:
        for result in pool.map(ORDERS):
            print(f"{result.prompt} -> {result.text or result.error}")


if __name__ == "__main__":
    main(AnthropicBackend())
