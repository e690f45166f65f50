"""Every endpoint proves itself with the shipped contract; a new one is found because it exists.

An endpoint without a stream in endpoint_streams.py fails here with a KeyError: write one.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoint_streams import STREAMS
from llmdyno import endpoints, plugins
from llmdyno.testing.endpoints import (
    EndpointContract,
    assert_reads_as_something,
    bodies_of,
    unhurried,
)
from llmdyno.testing.load import run
from llmdyno.testing.scripted_server import answering, plain, raw

NAMES = plugins.names("endpoints")
HTTP = [name for name in NAMES if not endpoints.load(name).rpc]

for name in NAMES:
    class_name = f"Test_{name.replace('-', '_')}"
    globals()[class_name] = type(
        class_name,
        (EndpointContract,),
        {"endpoint": endpoints.load(name), "stream": STREAMS[name]},
    )


@pytest.mark.parametrize("name", NAMES)
@unhurried
@given(data=st.data())
def test_what_any_of_our_servers_sends_there_is_a_reply(name: str, data: st.DataObject) -> None:
    bodies = data.draw(bodies_of(list(STREAMS.values())))

    assert_reads_as_something(endpoints.load(name), bodies)


@pytest.mark.parametrize("name", HTTP)
def test_a_refusal_may_come_as_an_event(name: str) -> None:
    refusal = raw(plain("400 Bad Request", b'data: {"error":"boom"}\n\n'))

    (record,) = run(answering(refusal), endpoints.load(name), requests=1)

    assert (record.error, record.detail) == ("http-400", "boom")


def test_the_contract_has_been_put_to_all_of_them() -> None:
    tested = {
        one.endpoint.name
        for one in globals().values()
        if isinstance(one, type)
        and issubclass(one, EndpointContract)
        and one is not EndpointContract
    }

    assert tested == set(NAMES)
