"""Open files: a connection takes one, and a process may have only so many of them.

Most systems let a process have 1,024 at first and many more if it asks. We ask, and say it before
anything starts if that is not enough.
"""

import resource

from llmdyno.errors import UsageError

SPARE = 64  # for journals, event loops, standard streams, children
_USUAL = 65_536  # asked for where the limit allows it: an open loop cannot know how many it needs


def allow(connections: int, *, otherwise: str = ", or spread the load with --workers") -> None:
    """Let this process have so many connections at once, or more.

    Args:
        connections: at once.
        otherwise: what can be done where the limit stays.

    Raises:
        UsageError: the system does not allow it.
    """
    wanted = connections + SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = hard == resource.RLIM_INFINITY
    if not unlimited and hard < wanted:
        raise UsageError(
            f"{connections:,} connections in one process need {wanted:,} open files, but the system"
            f" allows {hard:,} (ulimit -Hn): raise that limit{otherwise}."
        )
    most = max(wanted, _USUAL) if unlimited else min(hard, max(wanted, _USUAL))
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
