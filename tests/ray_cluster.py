"""A real Ray cluster of two nodes on this machine, for as long as standard input is open.

Prints the address once it is up. Small, because tests share the machine: one CPU a node, 80 MB.
"""

import os
import sys

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

from ray.cluster_utils import Cluster

NODE = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}

cluster = Cluster(initialize_head=True, head_node_args=NODE)
cluster.add_node(**NODE)
sys.stdout.write(f"{cluster.address}\n")
sys.stdout.flush()
sys.stdin.read()
cluster.shutdown()
