"""Three experts answer one question, and one of them sums up: `python examples/expert_panel.py`."""

from raypool import Pool
from raypool.backends import Backend, LocalBackend

PANEL = {"chemist": 1, "historian": 1, "economist": 1}
QUESTION = "Why did aluminium become cheap?"


def main(backend: Backend) -> None:
    with Pool.start(roles=PANEL, backend=backend) as pool:
        futures = pool.broadcast(QUESTION)
        opinions = [
            f"{role}: {future.result().text}"
            for role, future in zip(pool.workers.values(), futures, strict=True)
        ]
        print(*opinions, sep="\n")

        request = f"Sum up what the panel says to {QUESTION!r}:\n" + "\n".join(opinions)
        print("in short:", pool.submit(request, role="economist").result().text)


if __name__ == "__main__":
    main(LocalBackend())
