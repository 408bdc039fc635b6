"""The nodes of a cluster: what each offers, and which are about to go.

A node is drained before it goes: by Ray's autoscaler, by a raylet that got SIGTERM (as pods of spot instances do), or
by ``ray drain-node``. Ray says so in a private module alone (`ray.nodes` does not), and through Ray Client (``ray://``)
not at all. What an autoscaler may add it does not say anywhere.
"""

from __future__ import annotations

import ray
from ray._private.state import state

from cluster.sizing import Node


def living(leaving: frozenset[str]) -> dict[str, Node]:
    """What the nodes offer that are there and not about to go, taken or not, by id."""
    found = {}
    for node in ray.nodes():
        if node["Alive"] and node["NodeID"] not in leaving:
            has = node["Resources"]
            offers = (has.get(name, 0.0) for name in ("CPU", "GPU", "memory", "object_store_memory"))
            found[node["NodeID"]] = Node(*offers)
    return found


def about_to_go() -> frozenset[str]:
    """Ids of the nodes that are being drained."""
    if ray.util.client.ray.is_connected():
        return frozenset()
    return frozenset(state.get_draining_nodes())
