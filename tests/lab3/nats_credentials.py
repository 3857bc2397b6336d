"""Users whom a broker knows by signed tokens: what NATS's `nsc` writes, made here.

An *operator* signs accounts, an account signs users; each is a key pair, and what is signed is a JWT (RFC 7519) with NATS's
own algorithm name (NATS documentation, "JWTs" and "NKeys"). A .creds file holds a user's token and private key.
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import nkeys


def new_key(kind: int) -> Any:
    return nkeys.from_seed(nkeys.encode_seed(os.urandom(32), kind))


def token(signer: Any, subject: Any, name: str, **claims: Any) -> str:
    issuer, of = signer.public_key.decode(), subject.public_key.decode()
    body = {"jti": os.urandom(8).hex(), "iat": 1, "iss": issuer, "sub": of, "name": name}
    parts = [{"typ": "JWT", "alg": "ed25519-nkey"}, {**body, "nats": {**claims, "version": 2}}]
    signed = ".".join(map(encoded, (json.dumps(part).encode() for part in parts)))
    return f"{signed}.{encoded(signer.sign(signed.encode()))}"


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class Operator:
    """Makes a broker's configuration, and users for it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._account = new_key(nkeys.PREFIX_BYTE_ACCOUNT)
        key = new_key(nkeys.PREFIX_BYTE_OPERATOR)
        account = token(
            key,
            self._account,
            "lab",
            type="account",
            limits=dict.fromkeys(("subs", "data", "payload", "conn", "leaf"), -1),
        )
        self.configuration = folder / "nats.conf"
        self.configuration.write_text(
            f"operator: {token(key, key, 'operator', type='operator')}\n"
            f"resolver: MEMORY\nresolver_preload: {{ {self._account.public_key.decode()}: {account} }}\n",
            encoding="utf-8",
        )

    def user(self, name: str) -> Path:
        """The .creds file of a new user."""
        key = new_key(nkeys.PREFIX_BYTE_USER)
        jwt = token(self._account, key, name, type="user", **dict.fromkeys(("subs", "data", "payload"), -1))
        file = self._folder / f"{name}.creds"
        file.write_text(
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{key.seed.decode()}\n------END USER NKEY SEED------\n",
            encoding="utf-8",
        )
        return file
