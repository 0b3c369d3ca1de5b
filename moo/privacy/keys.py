"""Secret key of a study: source of every coin, split and drop of noise.

Noise seeded in the open is no noise.

From one 256-bit key, HMAC-SHA256 over an unambiguous encoding of a purpose derives what each use
needs. A stream is a Philox generator with a 128-bit key and a 256-bit counter start, both derived:
whoever does not hold the study key faces a 128-bit search. Whoever holds it can draw every number
again, which is what makes a study repeatable bit for bit.
"""

import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

import numpy as np

from moo.core.errors import InputError, MachineError

KEY_BYTES = 32


class StudyKey:
    """256 secret bits. Never printed."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        if len(secret) != KEY_BYTES:
            raise InputError(
                "A study key must have {key_bytes} bytes, got {n_secret}.",
                key_bytes=KEY_BYTES,
                n_secret=len(secret),
            )
        self._secret = secret

    def __repr__(self) -> str:
        return "StudyKey(<secret>)"

    @classmethod
    def fresh(cls) -> "StudyKey":
        """Return a new key from the operating system."""
        return cls(secrets.token_bytes(KEY_BYTES))

    @classmethod
    def from_hex(cls, text: str) -> "StudyKey":
        try:
            return cls(bytes.fromhex(text.strip()))
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                "A study key must be 64 hexadecimal digits, got something else; restore the file."
            ) from None

    @classmethod
    def load_or_create(cls, path: Path) -> "StudyKey":
        """Return the key in a file of mode 0600; a missing one is made, by one process alone.

        Raises:
            InputError: If the file holds no key, or others may read it.
            MachineError: If it cannot be written.
        """
        key = cls.fresh()
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(handle, "w", encoding="ascii") as out:
                out.write(key._secret.hex() + "\n")
                out.flush()
                os.fsync(out.fileno())
            # A link never replaces: the first process to come has made the key.
            with suppress(FileExistsError):
                os.link(temporary, path)
        except OSError as error:
            raise MachineError(
                "The study key cannot be written to {path}: {strerror}.", strerror=error.strerror, path=path
            ) from error
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()
        return cls.load(path)

    @classmethod
    def load(cls, path: Path) -> "StudyKey":
        """Return the key in a file of mode 0600.

        Raises:
            InputError: If there is none, the file holds no key, or others may read it.
        """
        if not path.is_file():
            raise InputError(
                "The study's key is missing from {path}; restore it: another key cannot replace it.",
                path=path,
            )
        if path.stat().st_mode & 0o077:
            raise InputError(
                "The study key must be readable by you alone, but {path} is open to others; run chmod 600 on it.",
                path=path,
            )
        return cls.from_hex(path.read_text(encoding="ascii"))

    def derive(self, *purpose: str | int | bytes) -> bytes:
        """Return 32 bytes for one purpose; no two different purposes give the same."""
        return hmac.new(self._secret, b"".join(map(_encoded, purpose)), hashlib.sha256).digest()

    def child(self, *purpose: str | int | bytes) -> "StudyKey":
        """Return a separate key for one purpose."""
        return StudyKey(self.derive(*purpose))

    def generator(self, *purpose: str | int | bytes) -> np.random.Generator:
        """Return a separate random stream for one purpose."""
        key = int.from_bytes(self.derive(*purpose, "philox key")[:16])
        counter = int.from_bytes(self.derive(*purpose, "philox counter"))
        return np.random.Generator(np.random.Philox(key=key, counter=counter))


def _encoded(part: str | int | bytes) -> bytes:
    """Return type, length and bytes: ("a", "b") and ("ab",) differ, and so do 1 and "1"."""
    if isinstance(part, bytes):
        kind, raw = b"b", part
    else:
        kind, raw = (b"s", part.encode()) if isinstance(part, str) else (b"i", str(part).encode())
    return kind + len(raw).to_bytes(8) + raw
