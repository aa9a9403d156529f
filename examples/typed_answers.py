"""Orders are read from letters into objects: `python examples/typed_answers.py`."""

from pydantic import BaseModel, Field

from raypool import Pool, Task
from raypool.backends import Backend, LocalBackend

LETTERS = [
    "Dear shop, please send me three bells. Yours, Ann",
    "Hello! I would like to buy 2 rain capes. Bob",
]


class Order(BaseModel):
    customer: str
    item: str
    count: int = Field(ge=1)


def main(backend: Backend) -> None:
    with Pool.start(2, role="clerk who reads orders", backend=backend) as pool:
        for result in pool.map(Task(letter, output_type=Order) for letter in LETTERS):
            order = result.parsed
            if order is None:
                print(f"not read: {result.prompt} ({result.error})")
            else:
                print(f"{order.customer} orders {order.count} x {order.item}")


if __name__ == "__main__":
    main(LocalBackend())
