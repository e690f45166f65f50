"""A real Ray cluster of two nodes on this machine, for as long as standard input is open.

Prints the address once it is up; with --jobs also the URL to which `ray job submit` sends. Small,
because tests share the machine: one CPU a node, 80 MB.
"""

import os
import sys

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

from ray.cluster_utils import Cluster

NODE = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}

jobs = "--jobs" in sys.argv
if jobs:
    NODE["dashboard_agent_listen_port"] = 0  # any: the usual one is free for one node alone
head = {**NODE, **({"include_dashboard": True, "dashboard_port": 0} if jobs else {})}
cluster = Cluster(initialize_head=True, head_node_args=head)
cluster.add_node(**NODE)
sys.stdout.write(f"{cluster.address}\n")
if jobs:
    sys.stdout.write(f"http://{cluster.head_node.webui_url}\n")
sys.stdout.flush()
sys.stdin.read()
cluster.shutdown()
