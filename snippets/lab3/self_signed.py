"""A certificate made on the spot. The only file of the lab that needs more than the standard library: cryptography."""

from __future__ import annotations

import datetime
import ipaddress
import os
from pathlib import Path
import tempfile

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from snippets.lab3.tls import fingerprint_of_file, server_side
from snippets.lab3.toolkit import Wrap

VALID_DAYS = 90


def make(host: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A certificate for a host, valid for VALID_DAYS and signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "group chat")])
    try:
        alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        alternative = x509.DNSName(host or "localhost")
    now = datetime.datetime.now(datetime.timezone.utc)
    unsigned = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))  # clocks differ
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return unsigned.sign(key, hashes.SHA256()), key


def self_signed(host: str) -> tuple[Wrap, str]:
    """What `server_side` gives, for a certificate made now, and the certificate's fingerprint."""
    certificate, key = make(host)
    with tempfile.TemporaryDirectory() as folder:  # ssl reads keys from files only; nobody else can read this folder
        paths = Path(folder, "cert.pem"), Path(folder, "key.pem")
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        with os.fdopen(os.open(paths[1], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            form = serialization.PrivateFormat.PKCS8
            file.write(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
        return server_side(*paths), fingerprint_of_file(paths[0])
