"""Events of a stream that are equal but for one JSON string, all read in one go.

A token is one such event, and decoding each on its own costs more than receiving it. Where
_reading.c was compiled (see inbox.py), it finds them: sometimes fewer or more than Python does, but
the same texts where both find any. What is not found is read one by one.
"""

from collections.abc import Sequence
from itertools import accumulate

import msgspec

from llmdyno.wire.inbox import split_run

_decode_text = msgspec.json.Decoder(str).decode
_decode_texts = msgspec.json.Decoder(list[str]).decode

# Where each event ends, and the text of each.
Run = tuple[list[int], list[str]]


def read_run(body: bytes, start: int, before: bytes, after: bytes) -> Run | None:
    """Read the events from a place on that differ in one text alone, which is not empty.

    Args:
        body: of the response.
        start: where the first of the events begins.
        before: of each event up to the text, with the quote; a line.
        after: of each event from the text on, with the quote; it ends with a blank line.

    Returns:
        None: there are none, or they have to be read one by one.
    """
    if split_run is None:
        return plain_run(body, start, before, after)
    ends, array = split_run(body, start, before, after)
    try:
        texts = _decode_texts(array)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return (ends, texts) if ends else None


def plain_run(body: bytes, start: int, before: bytes, after: bytes) -> Run | None:
    """Do what read_run() does, in Python."""
    # No string of JSON holds a line feed, so a part is what one event has between the two.
    *parts, last = body[start + len(before) :].split(after + before)
    text, found, _ = last.partition(after)
    if found and b"\n\n" not in text:
        parts.append(text)
    texts = _texts(parts) if parts else None
    if texts is None:
        return None
    around = len(before) + len(after)
    ends = list(accumulate([len(part) + around for part in parts], initial=start))
    return ends[1:], texts


def _texts(parts: Sequence[bytes]) -> list[str] | None:
    """Decode the insides of JSON strings; None if one of them is none, or is empty.

    All in one array: what breaks out of its string there makes the array longer, or no JSON. Only
    with a backslash a part could hide its neighbour, so then each is decoded for itself.
    """
    array = b'["' + b'","'.join(parts) + b'"]'
    try:
        if b"\\" in array:
            texts = [_decode_text(b'"' + part + b'"') for part in parts]
        else:
            texts = _decode_texts(array)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return texts if len(texts) == len(parts) and all(texts) else None
