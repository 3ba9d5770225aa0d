"""TLS and mutual TLS, with certificates that are made here."""

import datetime
import http.client
import ipaddress
import os
import ssl
import tempfile
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.operate.serve.web import Web, app, web
from workbench.errors import UsageError
from workbench.operate.serve import tls
from workbench.operate.serve.settings import Settings, Tls


def pem(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, password: bytes = b"") -> tuple[bytes, bytes]:
    """Key and certificate."""
    encryption: Any = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    encoding = serialization.Encoding.PEM
    return (
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, encryption),
        certificate.public_bytes(encoding),
    )


def certificate(
    name: str, issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None = None
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A certificate of 127.0.0.1 and its key; without an issuer it is an authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(issuer[1] if issuer else key, hashes.SHA256())
    )
    return made, key


AUTHORITY = certificate("authority")
SERVER = pem(*certificate("server", AUTHORITY))
CLIENT = pem(*certificate("client", AUTHORITY))
STRANGER = pem(*certificate("stranger", certificate("other authority")))
TRUSTED = pem(*AUTHORITY)[1]


def get_by_tls(server: Web, folder: Path, shown: tuple[bytes, bytes] | None = None) -> int:
    context = ssl.create_default_context(cadata=TRUSTED.decode())
    if shown:
        (folder / "client.pem").write_bytes(b"".join(shown))
        context.load_cert_chain(folder / "client.pem")
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=10, context=context)
    try:
        connection.request("POST", "/", b"{}")
        return connection.getresponse().status
    finally:
        connection.close()


def test_tls_serves_and_leaves_no_key_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with web(app, Settings(rest_tls=Tls(*SERVER))) as server:
        assert get_by_tls(server, tmp_path) == 200
        assert list(tmp_path.iterdir()) == []


def test_tls_needs_no_files_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    tls.context_of(Tls(*SERVER))
    assert list(tmp_path.iterdir()) == []


def test_a_body_over_the_limit_is_413_by_tls_too(tmp_path: Path) -> None:
    with web(app, Settings(rest_tls=Tls(*SERVER))) as server:
        context = ssl.create_default_context(cadata=TRUSTED.decode())
        with context.wrap_socket(server.connect(), server_hostname="127.0.0.1") as connection:
            connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8000000\r\n\r\n" + b"x" * 8_000_000)
            assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_older_tls_than_1_2_is_not_spoken() -> None:
    assert tls.context_of(Tls(*SERVER)).minimum_version == ssl.TLSVersion.TLSv1_2


def test_who_must_show_a_certificate_is_served_with_one_of_the_authority_alone(tmp_path: Path) -> None:
    with web(app, Settings(rest_tls=Tls(*SERVER, custom_ca=TRUSTED, client_verify=True))) as server:
        assert get_by_tls(server, tmp_path, CLIENT) == 200
        for shown in (None, STRANGER):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                get_by_tls(server, tmp_path, shown)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (Tls(SERVER[0], b"no certificate"), r"cannot be used .*expected PEM"),
        (Tls(CLIENT[0], SERVER[1]), r"cannot be used .*expected PEM"),
        (Tls(pem(*certificate("x"), b"secret")[0], SERVER[1]), r"the key has a password"),
        (Tls(*SERVER, custom_ca=b"none"), r"cannot be used .*expected PEM"),
        (Tls(*SERVER, client_verify=True), r"without a custom_ca; give the certificate"),
    ],
    ids=["certificate", "key", "password", "authority", "no authority"],
)
def test_keys_that_cannot_be_used_are_refused(given: Tls, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        tls.context_of(given)
