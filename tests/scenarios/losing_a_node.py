"""A program that has a pool answer on two nodes, and kills the one with the pool's dispatcher.

`python -m tests.scenarios.losing_a_node URL COUNT` prints what became of the pool, as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import ray
from ray._private.state import actors
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raypool import Pool, Task
from raypool.backends import ScriptedBackend
from raypool.names import dispatcher_name

NAME = "crew"
TURN_SECONDS = 0.2
PATIENCE_SECONDS = 90.0
SOON_DECLARED_DEAD = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 4,
}
NODE: dict[str, Any] = {
    "num_cpus": 2,
    "object_store_memory": 80_000_000,
    "include_dashboard": False,
}


def main(url: str, count: int) -> dict[str, Any]:
    """Start, ask, kill, and wait for the answers."""
    head = {**NODE, "num_cpus": 0, "_system_config": SOON_DECLARED_DEAD}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        first, _ = cluster.add_node(**NODE), cluster.add_node(**NODE)
        cluster.wait_for_nodes()
        ray.init(cluster.address, log_to_driver=False)
        there = NodeAffinitySchedulingStrategy(first.node_id, soft=False)
        ray.get(ray.remote(start).options(scheduling_strategy=there).remote(url))
        pool = Pool.connect(NAME)
        began_on = node_of_dispatcher()
        futures = pool.submit_many([Task(f"q-{n}", id=f"q-{n}") for n in range(count)])
        futures[0].result(PATIENCE_SECONDS)
        cluster.remove_node(first, allow_graceful=False)
        answers = [future.result(PATIENCE_SECONDS).text for future in futures]
        found = {
            "began on": began_on == first.node_id,
            "answers": answers,
            "completed": pool.status().completed,
            "moved": node_of_dispatcher() != began_on,
        }
        pool.stop()
    finally:
        ray.shutdown()
        shut_down: Any = cluster.shutdown
        shut_down()
    return found


def start(url: str) -> None:
    """Start the pool on this node."""
    backend = ScriptedBackend(latency=TURN_SECONDS)
    Pool.start(2, backend=backend, ledger=url, name=NAME, detached=True)


def node_of_dispatcher() -> str:
    """The id of the node where the pool's dispatcher is alive."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        for one in actors().values():
            if one["Name"] == dispatcher_name(NAME) and one["State"] == "ALIVE":
                return str(one["Address"]["NodeID"])
        time.sleep(0.1)
    raise AssertionError("the dispatcher is nowhere")


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))
