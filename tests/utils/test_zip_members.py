"""Small archives are read as `zipfile` reads them, whole or damaged."""

from __future__ import annotations

import io
import zipfile
import zlib

import numpy as np
import pytest

from peft_methods.utils.zip_members import zip_reader

DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, KeyError)
NAMES = ("logits.npy", "labels.npy")


def archive(*, compressed: bool = True, comment: bytes = b"", name: str = "labels.npy") -> bytes:
    file = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", method) as made:
        made.comment = comment
        made.writestr("logits.npy", b"0123456789" * 20)
        made.writestr(name, b"")
    return file.getvalue()


def saved(compressed: bool) -> bytes:
    file = io.BytesIO()
    save = np.savez_compressed if compressed else np.savez
    save(file, logits=np.arange(6.0).reshape(3, 2), labels=np.arange(3))
    return file.getvalue()


def read_by_zipfile(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def read(content: bytes) -> dict[str, bytes]:
    names, member = zip_reader(content)
    return {name: member(name) for name in names}


@pytest.mark.parametrize(
    "content",
    [
        archive(),
        archive(compressed=False),
        archive(comment=b"a comment"),
        archive(name="ä.npy"),
        saved(compressed=True),
        saved(compressed=False),
    ],
    ids=("deflated", "stored", "comment", "other_name", "saved_deflated", "saved_stored"),
)
def test_members_are_those_of_zipfile(content: bytes) -> None:
    assert read(content) == read_by_zipfile(content)
    with pytest.raises(KeyError):
        zip_reader(content)[1]("other")


def test_every_changed_byte_is_noticed_or_changes_nothing() -> None:
    content = archive()
    whole = read(content)
    for place in range(len(content)):
        for change in (1, 0x80, 0xFF):
            damaged = bytearray(content)
            damaged[place] ^= change
            try:
                found = read(bytes(damaged))
            except (*DAMAGE, UnicodeDecodeError, ValueError):
                continue
            assert set(found.values()) <= set(whole.values())


@pytest.mark.parametrize("length", [0, 10, 21, 22, 100])
def test_truncated_archive_is_refused(length: int) -> None:
    with pytest.raises(DAMAGE):
        read(archive()[:length])


def test_member_larger_than_it_says_is_refused_without_unpacking_it() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("logits.npy", bytes(10**7))
    content = bytearray(file.getvalue())
    size = (10**7).to_bytes(4, "little")
    for place in (content.find(size), content.rfind(size)):
        content[place : place + 4] = (100).to_bytes(4, "little")
    with pytest.raises(zipfile.BadZipFile, match="damaged"):
        read(bytes(content))
