"""The key of links: made once, read by its owner only, and never a reason to start half."""

import pytest

from service.dashboard.links.signing import Claims, Signer
from service.errors import LinkKeyUnusable, NotFound, Stop

CLAIMS = Claims(1, "default", {"kind": "Größe & Co"}, 2_000_000_000)


def test_a_token_says_what_was_signed(tmp_path):
    signer = Signer(tmp_path / "new" / "links.key")
    token = signer.sign(CLAIMS)
    assert signer.read(token) == CLAIMS
    assert Signer(tmp_path / "new" / "links.key").read(token) == CLAIMS
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["links.key"]


def test_another_key_reads_nothing(tmp_path):
    token = Signer(tmp_path / "one").sign(CLAIMS)
    with pytest.raises(NotFound):
        Signer(tmp_path / "two").read(token)


@pytest.mark.parametrize(("content", "mode"), [(b"short", 0o600), (b"x" * 64, 0o644), (b"x" * 64, 0o660)])
def test_a_short_or_open_key_is_refused(tmp_path, content, mode):
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(Stop) as stopped:
        Signer(path).load()
    assert str(path) in str(stopped.value)
    with pytest.raises(LinkKeyUnusable):
        Signer(path).sign(CLAIMS)


def test_a_folder_is_no_key(tmp_path):
    (tmp_path / "key").mkdir(mode=0o700)
    with pytest.raises(Stop):
        Signer(tmp_path / "key").load()
