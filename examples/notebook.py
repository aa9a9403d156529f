"""As in a notebook, where a line may `await`: `python examples/notebook.py`."""

import asyncio

from raypool import Pool
from raypool.backends import Backend, LocalBackend

CITIES = ["Paris", "Rome", "Cairo"]


async def main(backend: Backend) -> None:
    async with Pool.start(2, role="travel guide", backend=backend) as pool:
        first = await pool.submit("What is the capital of France?")
        print(first.text)

        together = await asyncio.gather(*(pool.submit(f"Where is {city}?") for city in CITIES))
        print([response.text for response in together])

        async for text in pool.submit("Describe Venice.", stream=True).stream():
            print(text, end="", flush=True)
        print()

        async for result in pool.map(
            (f"What is {city} known for?" for city in CITIES), ordered=False
        ):
            print(result.prompt, result.text)


if __name__ == "__main__":
    asyncio.run(main(LocalBackend()))
