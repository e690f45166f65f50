"""Messages of KServe's prediction protocol v2 over gRPC, as Triton speaks it.

The gRPC endpoint writes requests and reads answers with it, and asks a server what it serves. Only
the fields that we need are read and written, directly in protobuf's wire format: half a dozen
messages do not need a compiler, and a token's message is read in a few microseconds. The field
numbers are those of grpc_predict_v2.proto; the tests compare them with Triton's own.
"""

import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from llmdyno.wire.inbox import Piece

SERVICE = "/inference.GRPCInferenceService/"
_PREFIX = struct.Struct(">?I")  # before each message: compressed or not, and its length
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # protobuf's wire types
_VARINT_BYTES_MAX = 10
_RESPONSE_KEY, _CONTENT_KEY = 2 << 3 | _BYTES, 6 << 3 | _BYTES  # infer_response, its contents
_HEADS_MAX = 256  # Triton writes a response's parameters in any order
_LENGTH = struct.Struct("<I")  # before each element of a BYTES tensor
# How an element of a tensor is packed.
_PACKED = dict(
    zip(
        "BOOL INT8 INT16 INT32 INT64 UINT8 UINT16 UINT32 UINT64 FP16 FP32 FP64".split(),
        "?bhiqBHIQefd",
        strict=True,
    )
)


class MessageError(Exception):
    """Bytes that are not a message of this protocol."""


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """An input or output of a model, as the server describes it."""

    name: str
    datatype: str  # BYTES, INT32, …
    shape: tuple[int, ...]  # -1: any


class Output(msgspec.Struct, kw_only=True):
    """One response of a stream."""

    error: str = ""
    final: bool = False
    texts: list[bytes] = []  # of text_output
    num_input_tokens: int | None = None
    num_output_tokens: int | None = None


# gRPC's own framing.


def framed(message: bytes) -> bytes:
    """Return a message with gRPC's prefix: not compressed, and its length."""
    return _PREFIX.pack(False, len(message)) + message


def messages(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Yield (stamp, message); a message has the stamp of the piece that completed it.

    An incomplete message at the end is not yielded.

    Raises:
        MessageError: a message is compressed, which we never allow.
    """
    begun: list[bytes] = []  # joined when the message is whole, or it would be quadratic
    size = wanted = 0
    for stamp, piece in pieces:
        if not size and len(piece) > _PREFIX.size:  # the usual: all of one message
            compressed, length = _PREFIX.unpack_from(piece)
            if not compressed and length == len(piece) - _PREFIX.size:
                yield stamp, piece[_PREFIX.size :]
                continue
        begun.append(piece)
        size += len(piece)
        if size < wanted or size < _PREFIX.size:
            continue
        data = b"".join(begun) if len(begun) > 1 else piece
        at = 0
        while True:
            wanted = _PREFIX.size
            if size - at >= _PREFIX.size:
                compressed, length = _PREFIX.unpack_from(data, at)
                if compressed:
                    raise MessageError("a compressed message")
                wanted += length
            if size - at < wanted:
                break
            yield stamp, data[at + _PREFIX.size : at + wanted]
            at += wanted
        begun = [data[at:]] if at < size else []
        size -= at


# Protobuf's wire format.


def _varint(number: int) -> bytes:
    number &= 2**64 - 1
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _field(number: int, value: bytes | str | int | bool) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3 | _VARINT) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | _BYTES) + _varint(len(data)) + data


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = 0
    for position, byte in enumerate(data[at : at + _VARINT_BYTES_MAX]):
        number |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            return number, at + position + 1
    raise MessageError(f"no number at byte {at}")


def _fields(data: bytes) -> Iterator[tuple[int, Any, int]]:
    """Yield (number, value, end) of each field; a value is bytes or a whole number."""
    at, end = 0, len(data)
    while at < end:
        key = data[at]
        if key < 0x80:
            at += 1
        else:
            key, at = _read_varint(data, at)
        kind = key & 7
        if kind == _BYTES:
            if at < end and data[at] < 0x80:
                length = data[at]
                at += 1
            else:
                length, at = _read_varint(data, at)
            if at + length > end:
                raise MessageError(f"a field of {length} bytes, but {end - at} are left")
            yield key >> 3, data[at : at + length], at + length
            at += length
        elif kind == _VARINT:
            value, at = _read_varint(data, at)
            yield key >> 3, value, at
        elif kind in {_FIXED64, _FIXED32}:
            width = 8 if kind == _FIXED64 else 4
            if at + width > end:
                raise MessageError("a number cut short")
            yield key >> 3, int.from_bytes(data[at : at + width], "little"), at + width
            at += width
        else:
            raise MessageError(f"wire type {kind} at byte {at}")


def _text(value: Any) -> str:
    if not isinstance(value, bytes):
        raise MessageError("a number where a text belongs")
    return value.decode(errors="replace")


# Requests.


def infer_request(model: str, values: Mapping[str, Any], tensors: Iterable[Tensor]) -> bytes:
    """Return a ModelInferRequest for these values.

    As over HTTP, a value that the model declares becomes an input, and any other a parameter of the
    request. Without `tensors`, the inputs that the model declares, every value becomes an input of
    one element in a batch of one.
    """
    known = {tensor.name: tensor for tensor in tensors}
    inputs, contents = b"", b""
    parameters = {"triton_enable_empty_final_response": True}
    for name, value in values.items():
        tensor = known.get(name) if known else _guessed(name, value)
        if tensor is None:
            parameters[name] = value
            continue
        elements = value if isinstance(value, list | tuple) else [value]
        inputs += _field(5, _input(tensor, len(elements)))
        contents += _field(7, _raw(tensor, elements))
    stated = b"".join(_field(4, _parameter(name, value)) for name, value in parameters.items())
    return _field(1, model) + stated + inputs + contents


def _guessed(name: str, value: Any) -> Tensor:
    match value[0] if isinstance(value, list | tuple) and value else value:
        case bool():
            datatype = "BOOL"
        case int():
            datatype = "INT32"
        case float():
            datatype = "FP32"
        case _:
            datatype = "BYTES"
    return Tensor(name=name, datatype=datatype, shape=(1, 1))


def _input(tensor: Tensor, elements: int) -> bytes:
    """Return an InferInputTensor: all elements in the last dimension, a batch of one before it."""
    shape = [1] * (len(tensor.shape) - 1) + [elements] if tensor.shape else []
    dimensions = b"".join(map(_varint, shape))
    return _field(1, tensor.name) + _field(2, tensor.datatype) + _field(3, dimensions)


def _raw(tensor: Tensor, elements: Iterable[Any]) -> bytes:
    if tensor.datatype == "BYTES":
        encoded = [str(element).encode() for element in elements]
        return b"".join(_LENGTH.pack(len(element)) + element for element in encoded)
    packed = struct.Struct("<" + _PACKED[tensor.datatype])
    return b"".join(map(packed.pack, elements))


def _parameter(name: str, value: Any) -> bytes:
    """Return an entry of the map of InferParameters."""
    match value:
        case bool():
            stated = _field(1, value)
        case int():
            stated = _field(2, value)
        case float():
            stated = _varint(4 << 3 | _FIXED64) + struct.pack("<d", value)
        case str():
            stated = _field(3, value)
        case _:
            stated = _field(3, json.dumps(value))
    return _field(1, name) + _field(2, stated)


def metadata_request(model: str) -> bytes:
    """Return a ModelMetadataRequest, which asks for the inputs and outputs of a model."""
    return _field(1, model)


# Answers.


class Responses:
    """Reads the messages of one stream, each a ModelStreamInferResponse.

    The bytes before the contents are the same in nearly all responses, so they are parsed once.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[tuple[str, ...], bool]] = {}  # head → outputs' names, final
        self._width = -1  # of the head last read

    def read(self, message: bytes) -> Output:
        """Read one message of the stream.

        Raises:
            MessageError: the bytes are not a ModelStreamInferResponse.
        """
        output = Output()
        if self._read_known(message, output):
            return output
        output = Output()
        for number, value, _ in _fields(message):
            if number == 1:
                output.error = _text(value)
            elif number == 2:
                self._read_response(_checked(value), output)
        return output

    def _read_known(self, message: bytes, output: Output) -> bool:
        """Read a response of less than 16 KiB with a known head, if it is one."""
        size = len(message)
        if size < 3 or message[0] != _RESPONSE_KEY:
            return False
        length, at = message[1], 2
        if length > 0x7F:
            length, at = (length & 0x7F) + (message[2] << 7), 3
        known = self._known.get(message[at : at + self._width])
        if known is None or at + length != size:
            return False
        names, output.final = known
        at += self._width
        for name in names:
            if at + 1 >= size or message[at] != _CONTENT_KEY or message[at + 1] > 0x7F:
                return False
            end = at + 2 + message[at + 1]
            _take_output(name, message[at + 2 : end], output)
            at = end
        return at == size

    def _read_response(self, response: bytes, output: Output) -> None:
        names: list[str] = []
        width = 0
        contents: list[bytes] = []
        for number, value, end in _fields(response):
            if number == 6:
                contents.append(_checked(value))
                continue
            if number == 5:
                names.append(_text(_first(_checked(value), 1)))
            elif number == 4:
                output.final = output.final or _is_final(_checked(value))
            width = end
        if len(contents) != len(names):
            raise MessageError(f"{len(names)} outputs with {len(contents)} contents")
        for name, content in zip(names, contents, strict=True):
            _take_output(name, content, output)
        if len(self._known) < _HEADS_MAX:
            self._width = width
            self._known[response[:width]] = tuple(names), output.final


def _take_output(name: str, content: bytes, output: Output) -> None:
    if name == "text_output":
        output.texts = list(_elements(content))
    elif name == "num_output_tokens":
        output.num_output_tokens = int.from_bytes(content[:4], "little")
    elif name == "num_input_tokens":
        output.num_input_tokens = int.from_bytes(content[:4], "little")


def _elements(content: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(content):
        if at + _LENGTH.size > len(content):
            raise MessageError("a text cut short")
        (length,) = _LENGTH.unpack_from(content, at)
        at += _LENGTH.size
        if at + length > len(content):
            raise MessageError("a text cut short")
        yield content[at : at + length]
        at += length


def _checked(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise MessageError("a number where a message belongs")
    return value


def _first(message: bytes, wanted: int) -> Any:
    """Return the value of a message's first field of that number; no bytes if it has none."""
    return next((value for number, value, _ in _fields(message) if number == wanted), b"")


def _is_final(parameter: bytes) -> bool:
    said = _first(parameter, 1) == b"triton_final_response"
    return said and bool(_first(_checked(_first(parameter, 2)), 1))


def read_metadata(message: bytes) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return the model's inputs and outputs from a ModelMetadataResponse.

    Raises:
        MessageError: the bytes are not a ModelMetadataResponse.
    """
    found: dict[int, list[Tensor]] = {4: [], 5: []}
    for number, value, _ in _fields(message):
        if number in found:
            found[number].append(_tensor(_checked(value)))
    return tuple(found[4]), tuple(found[5])


def _tensor(described: bytes) -> Tensor:
    name = datatype = ""
    shape: list[int] = []
    for number, value, _ in _fields(described):
        if number == 1:
            name = _text(value)
        elif number == 2:
            datatype = _text(value)
        elif isinstance(value, int):  # of a repeated field that is not packed
            shape.append(_signed(value))
        else:
            at = 0
            while at < len(value):
                dimension, at = _read_varint(value, at)
                shape.append(_signed(dimension))
    return Tensor(name=name, datatype=datatype, shape=tuple(shape))


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number


def read_index(message: bytes) -> list[str]:
    """Return the names of the models that are ready from a RepositoryIndexResponse.

    Raises:
        MessageError: the bytes are not a RepositoryIndexResponse.
    """
    models = [_checked(value) for number, value, _ in _fields(message) if number == 1]
    return [_text(_first(model, 1)) for model in models if _first(model, 3) == b"READY"]
