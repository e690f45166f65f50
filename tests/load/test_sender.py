"""How a request is sent: what a server's Retry-After means; levels are in test_level.py."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from llmdyno.load.sender import RETRY_AFTER_MAX_S, _retry_after_s
from llmdyno.wire.exchange import Response


def _response(retry_after: str, status: int = 429) -> Response:
    return Response(sent_ns=0, status=status, headers={"retry-after": retry_after})


def test_retry_after_may_be_a_date_and_is_capped() -> None:
    in_20_s = datetime.now(UTC) + timedelta(seconds=20)
    tomorrow = in_20_s + timedelta(days=1)
    yesterday = in_20_s - timedelta(days=1)

    assert 15 < _retry_after_s(_response(format_datetime(in_20_s, usegmt=True))) <= 20
    assert _retry_after_s(_response(format_datetime(tomorrow, usegmt=True))) == 60
    assert _retry_after_s(_response(format_datetime(yesterday, usegmt=True))) == 0
    assert _retry_after_s(_response("86400")) == RETRY_AFTER_MAX_S == 60
    assert _retry_after_s(_response("1.5")) == 1.5


@pytest.mark.parametrize("garbage", ["soon", "-5", "nan", "inf", "1e9", "²", "1.2.3", "", "0"])
def test_a_retry_after_that_is_garbage_is_no_pause(garbage: str) -> None:
    assert _retry_after_s(_response(garbage)) == 0


def test_retry_after_means_nothing_with_other_statuses() -> None:
    assert _retry_after_s(_response("9", 200)) == 0
