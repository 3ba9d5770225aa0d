"""The TLS of REST, of PEM texts: none of the key is left on disk.

context = context_of(settings.rest_tls)
"""

import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from workbench.errors import UsageError
from workbench.operate.serve.settings import Tls


def context_of(tls: Tls) -> ssl.SSLContext:
    """TLS 1.2 or newer. Raises UsageError for keys and certificates that cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        with _file_of(tls.server_cert.strip() + b"\n" + tls.server_key) as path:
            context.load_cert_chain(path, password=_no_password)
        if tls.custom_ca:
            context.load_verify_locations(cadata=tls.custom_ca.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise UsageError(
            f"the key and certificates of TLS cannot be used ({error}); expected PEM: a server_cert, its server_key "
            "without a password, and a custom_ca if clients are verified"
        ) from error
    if tls.client_verify:
        if not tls.custom_ca:
            raise UsageError("client_verify without a custom_ca; give the certificate that signs those of clients")
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _no_password() -> str:
    raise ValueError("the key has a password")


@contextmanager
def _file_of(secret: bytes) -> Iterator[str]:
    """A name for OpenSSL to open: of memory where the system has that, else of a private file that is then removed."""
    if hasattr(os, "memfd_create"):
        with open(os.memfd_create("tls"), "wb", buffering=0) as memory:
            memory.write(secret)
            yield f"/proc/self/fd/{memory.fileno()}"
    else:
        with tempfile.NamedTemporaryFile(buffering=0) as file:
            file.write(secret)
            yield file.name
