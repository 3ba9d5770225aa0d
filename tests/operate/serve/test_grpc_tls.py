"""gRPC over TLS, also where clients must show a certificate."""

import datetime
import ipaddress
from dataclasses import dataclass

import grpc  # type: ignore[import-untyped]
import pytest

from tests.operate.serve.halver_grpc import asked, predict_request, refused
from workbench.errors import UsageError
from workbench.operate.serve.settings import Settings, Tls


@dataclass(frozen=True)
class Pem:
    key: bytes
    certificate: bytes


@pytest.fixture(scope="module")
def pems() -> dict[str, Pem]:
    """An authority, and what it has signed for the server and for a client."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    now = datetime.datetime.now(datetime.UTC)
    hosts = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signing = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("authority", "server", "client")}
    authority = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])
    found = {}
    for name, key in signing.items():
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
            .issuer_name(authority)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=name == "authority", path_length=None), critical=True)
            .add_extension(hosts, critical=False)
            .sign(signing["authority"], hashes.SHA256())
        )
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        found[name] = Pem(private, certificate.public_bytes(serialization.Encoding.PEM))
    return found


def test_tls_serves_those_who_trust_its_authority(pems: dict[str, Pem]) -> None:
    settings = Settings(port=0, tls=Tls(pems["server"].key, pems["server"].certificate))
    trusting = grpc.ssl_channel_credentials(pems["authority"].certificate)
    response = asked(
        lambda served: served.prediction.Predict(predict_request()), settings=settings, credentials=trusting
    )
    assert response.outputs["half"].float_val == [0.5, 1.5]


def test_tls_answers_nothing_in_the_clear(pems: dict[str, Pem]) -> None:
    settings = Settings(port=0, tls=Tls(pems["server"].key, pems["server"].certificate))
    error = refused(lambda served: served.prediction.Predict(predict_request()), settings=settings)
    assert error.code() is grpc.StatusCode.UNAVAILABLE


def test_mutual_tls_serves_clients_with_a_certificate_alone(pems: dict[str, Pem]) -> None:
    server, client, authority = pems["server"], pems["client"], pems["authority"].certificate
    settings = Settings(port=0, tls=Tls(server.key, server.certificate, authority, client_verify=True))
    shown = grpc.ssl_channel_credentials(authority, client.key, client.certificate)
    assert asked(lambda served: served.prediction.Predict(predict_request()), settings=settings, credentials=shown)
    error = refused(
        lambda served: served.prediction.Predict(predict_request()),
        settings=settings,
        credentials=grpc.ssl_channel_credentials(authority),
    )
    assert error.code() is grpc.StatusCode.UNAVAILABLE


def test_a_key_that_is_none_is_an_error_of_use(pems: dict[str, Pem]) -> None:
    settings = Settings(port=0, tls=Tls(b"-----BEGIN nothing", pems["server"].certificate))
    with pytest.raises(UsageError, match=r"and a certificate that fits its key"):
        asked(lambda served: served.prediction.Predict(predict_request()), settings=settings)
