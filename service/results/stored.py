"""A result as bytes in the shared store: its length, its key and a signature are inside.

Whatever the store returns is checked as if a stranger had sent it. A value that is cut off, belongs to
another key, is damaged or was not signed by a node of this database counts as none.
"""

import hmac
import struct
from hashlib import blake2b
from typing import Final

import msgspec
from msgspec import Struct

from service.database.snapshots import Snapshot

FORMAT: Final = b"tally result 3"
"""Part of every signature. A new layout gets a new number, so that nodes of two versions share nothing."""
SIGNATURE_BYTES: Final = 32
LENGTH_BYTES: Final = 4
_TIME: Final = struct.Struct("!d")


class Proof(Struct, frozen=True, array_like=True):
    """What a run saw at least, and what its node knew.

    `server` and `incarnation` name the server's present life. `digest` covers the definitions.
    """

    server: str
    snapshot: Snapshot
    digest: bytes
    incarnation: bytes = b""


class SharedResult(Struct, frozen=True, array_like=True):
    """A result of a run on any node. Times are the database server's, in epoch seconds."""

    key: bytes
    proof: Proof
    made_at: float
    fresh_until: float | None
    max_age: int
    media_type: str
    comparable_bytes: int
    timings: str
    disposition: str
    truncated: bool
    body: bytes


_DECODER: Final = msgspec.msgpack.Decoder(SharedResult)


def name_of(incarnation: bytes, key: bytes) -> bytes:
    """The name of a result in the store. Databases that share a store have different names.

    The braces keep a result and its lease on one server of a Cluster.
    """
    digest = blake2b(key, key=incarnation, digest_size=16).hexdigest()
    return b"tally:{%b}" % digest.encode()


def seal(result: SharedResult, incarnation: bytes) -> bytes:
    """The result as signed bytes. The secret itself is not part of them."""
    signed = msgspec.structs.replace(result, proof=msgspec.structs.replace(result.proof, incarnation=b""))
    content = msgspec.msgpack.encode(signed)
    length = len(content).to_bytes(LENGTH_BYTES, "big")
    return _signature(incarnation, length, content) + length + content


def open_sealed(sealed: bytes, key: bytes, incarnation: bytes) -> SharedResult | None:
    """The result, or None unless it is whole, belongs to the key and was signed with the secret."""
    signature, length = sealed[:SIGNATURE_BYTES], sealed[SIGNATURE_BYTES : SIGNATURE_BYTES + LENGTH_BYTES]
    content = sealed[SIGNATURE_BYTES + LENGTH_BYTES :]
    if len(length) < LENGTH_BYTES or int.from_bytes(length, "big") != len(content):
        return None
    if not hmac.compare_digest(signature, _signature(incarnation, length, content)):
        return None
    try:
        result = _DECODER.decode(content)
    except (msgspec.DecodeError, msgspec.ValidationError):  # signed by a node of another version
        return None
    if result.key != key:
        return None
    return msgspec.structs.replace(
        result, proof=msgspec.structs.replace(result.proof, incarnation=incarnation)
    )


def lease_of(name: bytes, ends_at: float, nonce: bytes, incarnation: bytes) -> bytes:
    """A signed lease: who holds it, and until when by the clock of the database server."""
    content = _TIME.pack(ends_at) + nonce
    return content + hmac.digest(incarnation, b"tally lease 1" + name + content, "sha256")


def lease_ends_at(lease: bytes, name: bytes, incarnation: bytes) -> float:
    """When a lease ends; 0 if no node of this database signed it for this name."""
    content, signature = lease[:-SIGNATURE_BYTES], lease[-SIGNATURE_BYTES:]
    if len(content) < _TIME.size or not hmac.compare_digest(
        signature, hmac.digest(incarnation, b"tally lease 1" + name + content, "sha256")
    ):
        return 0.0
    return float(_TIME.unpack_from(content)[0])


def _signature(incarnation: bytes, length: bytes, content: bytes) -> bytes:
    return hmac.digest(incarnation, b"".join((FORMAT, length, content)), "sha256")
