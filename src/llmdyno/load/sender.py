"""Sends the requests of one level: one connection per user, a time limit, one retry, the cut.

level.py decides when a user sends; this module sends, waits, and returns the record.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from llmdyno.load.ending import Ending
from llmdyno.load.outcome import Request, record_of
from llmdyno.load.plan import Plan
from llmdyno.load.recorder import Recorder
from llmdyno.load.turnstile import Turnstile
from llmdyno.records.entries import Record
from llmdyno.wire.connect import CONNECT_TIMEOUT_S, ConnectError, as_sent, connect
from llmdyno.wire.exchange import Exchange, Meter, Response
from llmdyno.wire.poller import Poller, can_stamp
from llmdyno.wire.request import KeptConnection, answered
from llmdyno.wire.sockets import Addresses

RETRY_AFTER_MAX_S = 60.0
# Stop waiting for the body this long after the end mark: no more data is expected.
_AFTER_THE_END_NS = 5_000_000_000

Dial = Callable[[], Awaitable[Exchange]]


class Dialer:
    """Opens the connections of one level.

    One poller reads all plain TCP connections if the kernel stamps their packets.

    Args:
        plan: the target, and the time limit of a request, which also limits connecting.
        meter: counts the reads of all connections.
    """

    def __init__(self, plan: Plan, meter: Meter) -> None:
        self._target = plan.target
        self._timeout_s = min(CONNECT_TIMEOUT_S, plan.load.timeout_s)
        self._meter = meter
        self._addresses = Addresses()
        self._poller = Poller(meter, self._addresses) if can_stamp() else None

    async def dial(self) -> Exchange:
        """Open a connection and wait until it can be used.

        Raises:
            ConnectError: it could not be opened.
        """
        return await connect(
            self._target, self._meter, self._timeout_s, self._poller, self._addresses
        )

    def close(self) -> None:
        """Stop the poller and close the connections that it reads."""
        if self._poller is not None:
            self._poller.close()


class Sender:
    """Sends the requests of one level, one at a time per user (or per slot of an open loop).

    Args:
        plan: of the level.
        recorder: of the level.
        ending: of the level; after its cut nothing is sent.
        dial: opens a connection, or raises ConnectError.
    """

    def __init__(self, plan: Plan, recorder: Recorder, ending: Ending, dial: Dial) -> None:
        self._plan = plan
        self._recorder = recorder
        self._ending = ending
        self._dial = dial
        self._turnstile = Turnstile()
        self._paths = {one.name: plan.endpoint.path(one.name) for one in plan.models}
        self._kept: dict[int, KeptConnection] = {}  # by user
        self._in_flight: dict[int, Exchange] = {}  # by user
        self._silent_after: dict[int, int] = {}  # by user: pieces of the body at the last check

    async def exchange(self, request: Request) -> tuple[Record, str, float]:
        """Send one request and wait for its end.

        Returns:
            The record, the answer with which a session continues (empty if the request failed), and
            how many seconds the server asks the user to wait.
        """
        await self._turnstile.pass_through()
        plan = self._plan
        model = plan.model_of(request.number, request.item.session)
        body = plan.endpoint.body(plan.ask(request.item, model))
        data = as_sent(plan.target, self._paths[model], body)
        started_ns = self._recorder.now_ns()
        kept = self._kept.get(request.user)
        if kept is None:
            kept = self._kept[request.user] = KeptConnection(
                lambda: self._ending.unless_cut(self._dial)
            )
        try:
            response = await kept.request(
                lambda exchange: self._await_response(exchange, request.user, data)
            )
        except ConnectError as error:
            response = Response(
                sent_ns=started_ns,
                end_ns=self._recorder.now_ns(),
                error=error.kind,
                detail=str(error),
            )
        record, text = record_of(response, request, plan, self._recorder.zero_ns)
        return record, text, _retry_after_s(response)

    def hang_up(self, user: int) -> None:
        """Close the connection of a user that sends no further request."""
        if user in self._kept:
            self._kept.pop(user).close()

    def hang_up_all(self) -> None:
        """Close the connections of all users, once nothing more is sent."""
        for user in list(self._kept):
            self.hang_up(user)

    def cut(self) -> None:
        """End all requests in flight now; their records have the outcome "cut"."""
        for exchange in list(self._in_flight.values()):
            exchange.give_up("cut")

    def look_after(self, now_ns: int) -> None:
        """Let connections parse deferred reads, and end bodies that do not end after their end.

        To be called about once a second.
        """
        for user, exchange in list(self._in_flight.items()):
            exchange.look_after(now_ns)
            self._end_unended(user, exchange, now_ns)

    async def _await_response(self, exchange: Exchange, user: int, data: bytes) -> Response:
        if self._ending.is_cut:  # the cut came while it connected
            raise ConnectError("cut", "")
        timeout_s = self._plan.load.timeout_s
        self._in_flight[user] = exchange
        self._recorder.progress.in_flight += 1
        try:
            return await answered(exchange, data, timeout_s, f"no end within {timeout_s:g} s")
        finally:
            self._silent_after.pop(user, None)
            del self._in_flight[user]
            self._recorder.progress.in_flight -= 1

    def _end_unended(self, user: int, exchange: Exchange, now_ns: int) -> None:
        """End a request whose server sent the end mark, or an error, and never ended the body."""
        pieces = exchange.came_before(now_ns - _AFTER_THE_END_NS)
        if not pieces or self._silent_after.get(user) == len(pieces):
            return
        self._silent_after[user] = len(pieces)  # reads each body once per silence, as that costs
        reply = self._plan.endpoint.read(pieces)
        if reply.ended or reply.error == "stream-error":
            exchange.give_up("truncated", "the server never ended the body after its end mark")


def _retry_after_s(response: Response) -> float:
    """Return how long Retry-After asks us to wait, in seconds; a minute at most, 0 without it."""
    said = response.headers.get("retry-after", "").strip()
    if response.status not in {429, 503} or not said:
        return 0.0
    from email.utils import parsedate_to_datetime  # 5 ms that few runs need

    try:
        if said.replace(".", "", 1).isdecimal():
            wait_s = float(said)
        else:
            wait_s = (parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError):  # neither, or a date without a zone
        return 0.0
    return min(RETRY_AFTER_MAX_S, max(0.0, wait_s))
