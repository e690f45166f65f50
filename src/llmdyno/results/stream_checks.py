"""The check that finds a stream that is held back: what it is, and which setting mends it."""

from llmdyno.results.documents import Document, number, part, text
from llmdyno.results.streams import TOKENS_MIN, WHOLE_SHARE
from llmdyno.results.wording import significant

Finding = tuple[str, str]  # code and text

_HELD_BACK_SHARE = 0.5  # of an answer in one read, on the average of a level
_SOME_SHARE = 0.01  # of the answers; fewer may be a stall on the way
# Sources: nginx, ngx_http_proxy_module (proxy_buffering) and ngx_http_gzip_module; HAProxy,
# configuration manual, "option http-no-delay"; Apache, mod_proxy (flushpackets); Caddy,
# reverse_proxy (flush_interval); Kong, "Enabling streaming of responses ..." in its support pages;
# Azure API Management, "Configure API for server-sent events"; Traefik, buffering middleware.
REMEDY = (
    "If a proxy is between, let it pass each event on: nginx with proxy_buffering off; (or the"
    " server's header X-Accel-Buffering: no), HAProxy with option http-no-delay, Apache with"
    " ProxyPass ... flushpackets=on, Caddy with flush_interval -1, Kong with the route's"
    ' response_buffering=false, Azure API Management with buffer-response="false" in its'
    " forward-request, Traefik without its buffering middleware; and none of them may compress"
    " (gzip) text/event-stream. If none is, the server does not stream, or streams in large steps"
    " (vLLM, SGLang: --stream-interval)"
)


def about_stream(level: Document) -> list[Finding]:
    """Doubt a stream whose answers come whole or in large pieces."""
    stream = part(level, "stream")
    if not stream:
        return _about_means(level)
    answers, whole, pieces = (number(stream, name) or 0 for name in ("answers", "whole", "pieces"))
    held = whole + pieces
    if not answers or held <= max(_SOME_SHARE * answers, 1 if answers > 2 else 0):
        return []
    of_all = f"of {answers:,.0f} answer{'' if answers == 1 else 's'} of {TOKENS_MIN} tokens or more"
    each = number(stream, "tokens_per_read")
    if whole > WHOLE_SHARE * answers:
        said = (
            f"{whole:,.0f} {of_all} came whole, in one read: something holds the stream back, and"
            " nothing tells when tokens were made. TTFT, ITL and TPOT mean nothing here, E2E does."
        )
    else:
        said = (
            f"{held:,.0f} {of_all} came in one read or in large pieces"
            f" ({significant(each)} tokens a read in the median): something holds the stream back,"
            " so TTFT and ITL do not show when tokens were made."
        )
    return [("held-back-stream", f"{said} {REMEDY}.")]


def _about_means(level: Document) -> list[Finding]:
    """Doubt a level that does not say how each answer came, by its means."""
    if text(level, "client", "verdict") == "client-bound":
        return []
    output, completed = number(level, "tokens", "output"), number(level, "requests", "completed")
    a_read = number(level, "client", "tokens_per_read")
    if not output or not completed or not a_read:
        return []
    an_answer = output / completed
    if an_answer < TOKENS_MIN or a_read < _HELD_BACK_SHARE * an_answer:
        return []
    said = (
        f"answers of {significant(an_answer)} tokens come with {significant(a_read)} tokens a read"
        " (half of an answer or more): the server or a proxy holds the stream back, so TTFT and ITL"
        f" do not show when tokens were made. {REMEDY}."
    )
    return [("held-back-stream", said)]
