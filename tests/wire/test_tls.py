"""Whom a TLS connection trusts."""

import ssl
from pathlib import Path

import pytest

from llmdyno.wire.tls import tls_context


def test_a_server_must_prove_its_name_unless_the_user_says_otherwise() -> None:
    careful = tls_context(None, insecure=False, rpc=False)
    careless = tls_context(None, insecure=True, rpc=False)

    assert (careful.verify_mode, careful.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert (careless.verify_mode, careless.check_hostname) == (ssl.CERT_NONE, False)


def test_a_file_of_certificates_takes_the_place_of_the_systems(certificate: Path) -> None:
    context = tls_context(str(certificate.with_suffix(".crt")), insecure=False, rpc=False)

    (trusted,) = context.get_ca_certs()
    assert trusted["subject"] == ((("commonName", "localhost"),),)


@pytest.mark.parametrize(("rpc", "spoken"), [(False, "http/1.1"), (True, "h2")])
def test_the_protocol_is_agreed_on_in_the_handshake(rpc: bool, spoken: str) -> None:
    client = tls_context(None, insecure=True, rpc=rpc)
    hello = ssl.MemoryBIO()
    channel = client.wrap_bio(ssl.MemoryBIO(), hello)

    with pytest.raises(ssl.SSLWantReadError):
        channel.do_handshake()

    name = spoken.encode()
    assert bytes([len(name)]) + name in hello.read()


def test_a_file_that_is_none_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")

    with pytest.raises(ssl.SSLError):
        tls_context(str(tmp_path / "ca.pem"), insecure=False, rpc=False)
    with pytest.raises(FileNotFoundError):
        tls_context(str(tmp_path / "nowhere.pem"), insecure=False, rpc=False)
