"""One load on several copies of a server: which part each gets, and what all do together."""

from collections.abc import Sequence

import msgspec

from llmdyno.predict.forecast import Forecast, Range

Level = tuple[int | None, float | None]  # users, or requests a second


def shared_out(level: Level, copies: int) -> list[tuple[int, Level]]:
    """Return the loads that copies of a server get, each with how many get it; busiest first.

    Users are shared out as evenly as they can be: 10 over 8 copies are two users on two of them and
    one on six. 4 over 8 leave four copies idle, which are not in the list.
    """
    users, rate = level
    if users is None:
        return [(copies, (None, None if rate is None else rate / copies))]
    least, more = divmod(users, copies)
    shared = [(more, least + 1), (copies - more, least)]
    return [(count, (each, None)) for count, each in shared if count and each]


def together(parts: Sequence[tuple[int, Forecast]]) -> Forecast:
    """Return what copies do together: token rates added up, medians averaged over the requests.

    The slowest of all requests are those of the busiest copies, and so their p99 is that of all.

    Args:
        parts: how many copies have this forecast, the busiest first: what bounds the server, how
            many sequences run and how far it is from its limit is said of one of these.
    """
    counts = [float(count) for count, _ in parts]
    all_of = sum(count * one.token_rate.mean for count, one in parts)
    of_requests = [
        count * one.token_rate.mean / all_of if all_of else 1 / len(parts) for count, one in parts
    ]

    def mean(name: str) -> Range:
        return _sum([getattr(one, name) for _, one in parts], of_requests)

    return msgspec.structs.replace(
        parts[0][1],
        token_rate=_sum([one.token_rate for _, one in parts], counts),
        ttft_ms_p50=mean("ttft_ms_p50"),
        tpot_ms_p50=mean("tpot_ms_p50"),
        e2e_ms_p50=mean("e2e_ms_p50"),
    )


def _sum(ranges: Sequence[Range], weights: Sequence[float]) -> Range:
    """Return the weighted sum of ranges, ends with ends: copies err alike, being one model."""
    pairs = list(zip(ranges, weights, strict=True))
    return Range(
        sum(weight * one.mean for one, weight in pairs),
        (
            sum(weight * one.ci80[0] for one, weight in pairs),
            sum(weight * one.ci80[1] for one, weight in pairs),
        ),
    )
