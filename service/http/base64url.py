"""Base64 for addresses and tokens (RFC 4648, section 5), without padding."""

from base64 import urlsafe_b64decode, urlsafe_b64encode


def encode(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


def decode(text: bytes) -> bytes:
    """Decode the only spelling of some bytes. Raises `ValueError` for every other text."""
    data = urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    if encode(data) != text:
        raise ValueError("not base64url")
    return data
