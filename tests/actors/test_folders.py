import os
from pathlib import Path

from actors.folders import FILE, blob_id, knowing, read_cache, unchanged, write_cache


def test_a_file_written_about_when_it_was_read_is_read_again(tmp_path: Path) -> None:
    """What changed within the clock's grain before the cache was taken is not trusted; a coarse clock's is wider."""
    (tmp_path / "a").write_text("x")
    fine, coarse = 1_700_000_000_123_456_789, 1_700_000_000_000_000_000
    for stamp, guard in ((fine, 50_000_000), (coarse, 2_000_000_000)):
        os.utime(tmp_path / "a", ns=(stamp, stamp))
        found = (tmp_path / "a").stat()
        known = knowing(b"a", FILE, found, blob_id(b"x"))
        latest = max(known.mtime, known.ctime)
        write_cache(tmp_path / "cache", latest + guard, [known])
        assert read_cache(tmp_path / "cache") == {}
        write_cache(tmp_path / "cache", latest + guard + 1, [known])
        assert list(read_cache(tmp_path / "cache")) == [b"a"]


def test_any_difference_in_what_is_known_means_reading(tmp_path: Path) -> None:
    """Size, time and inode each tell by themselves."""
    (tmp_path / "a").write_text("x")
    found = (tmp_path / "a").stat()
    known = knowing(b"a", FILE, found, blob_id(b"x"))
    assert unchanged(known, found)
    for name, value in (("size", 7), ("mtime", 1), ("inode", found.st_ino + 1)):
        other = knowing(b"a", FILE, found, blob_id(b"x"))
        setattr(other, name, value)
        assert not unchanged(other, found)


def test_a_damaged_cache_is_none(tmp_path: Path) -> None:
    """Missing, cut and foreign caches are as good as empty."""
    (tmp_path / "cut").write_bytes(b"\x93\x01")
    (tmp_path / "foreign").write_bytes(b"\x93\x63\x01\x90")
    for name in ("missing", "cut", "foreign"):
        assert read_cache(tmp_path / name) == {}
