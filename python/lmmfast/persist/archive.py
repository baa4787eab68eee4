"""The container: a zip archive of ``model.json`` and ``.npy`` members, none of them compressed.

Python's ``zipfile`` and NumPy's file format do the work. Each array begins at a multiple of 64
bytes, so that it is used where the file is mapped into memory. ``model.json`` has a checksum of
each array, and the comment of the archive one of ``model.json``. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import mmap
import os
import re
import struct
import tokenize
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.data.whole_files import replacing
from lmmfast.errors import DataError

DOCUMENT = "model.json"
ALIGNMENT = 64
#: Types of arrays that can be in an archive.
KINDS = "biufmM"
MAX_DEPTH = 50
MAX_ARRAY_HEADER = 4096
#: Characters of a key in the name of an array.
MAX_NAME = 40

#: What reading a document raises that is another than it should be.
MALFORMED = (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError)

_COMMENT = re.compile(rb"lmmfast (\d{1,9}) sha256 ([0-9a-f]{64})")
_MEMBER = re.compile(r"arrays/[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*\.npy")
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, length of the name, length of the extra
_PADDING_ID = 0xD935  # the id that Android's zipalign pads with
#: Words for numbers that JSON does not have.
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def write_archive(path: str | os.PathLike[str], document: dict[str, Any], version: int) -> None:
    """Write a document of plain values and arrays; another file of that name is replaced at once.

    Parameters
    ----------
    path : path
    document : dict
        Of None, bool, int, float, str, lists, dicts by text, and ndarrays of numbers and times.
    version : int
        Of the format.

    Raises
    ------
    DataError
        Something in the document cannot be written.
    OSError
        As the operating system says.
    """
    arrays: dict[str, NDArray[Any]] = {}
    tree = _apart(document, "", arrays)
    parts = {name: _array_header(array) for name, array in arrays.items()}
    tree["arrays"] = {
        name: {"bytes": len(parts[name]) + array.nbytes, "sha256": _sha256(parts[name], array)}
        for name, array in arrays.items()
    }
    text = json.dumps(tree, separators=(",", ":"), allow_nan=False).encode()
    with replacing(Path(path)) as file, zipfile.ZipFile(file, "w") as archive:
        _write_member(archive, DOCUMENT, [text])
        for name, array in arrays.items():
            _write_member(archive, name, [parts[name], _bytes_of(array)])
        archive.comment = f"lmmfast {version} sha256 {hashlib.sha256(text).hexdigest()}".encode()


def read_archive(
    path: str | os.PathLike[str], version: int, *, map_file: bool = True, verify: bool = True
) -> dict[str, Any]:
    """Read what `write_archive` has written.

    Parameters
    ----------
    path : path
    version : int
        Of the newest format that can be read.
    map_file : bool
        Map arrays into memory; they cannot be written to. Else read them.
    verify : bool
        Compare the checksums of the arrays. That of the document always is.

    Raises
    ------
    DataError
        The file is damaged, of a newer format, or no such archive.
    OSError
        The file is not there, or cannot be read.
    """
    with open(path, "rb") as file:
        try:
            data = _contents(file, map_file)
            members = _members(file, data)
        except (
            zipfile.BadZipFile,
            zipfile.LargeZipFile,
            EOFError,
            NotImplementedError,
            OverflowError,
            RuntimeError,
            UnicodeDecodeError,
            ValueError,
            struct.error,
        ) as error:
            if isinstance(error, DataError):
                raise _at(path, str(error)) from None
            raise _at(path, f"damaged, or no model file of lmmfast ({error})") from None
    try:
        comment = bytes(members.pop(""))
        document = _document(members, comment, version)
        return _together(document, _arrays(document, members, verify), 0)
    except DataError as error:
        raise _at(path, str(error)) from None
    except (*MALFORMED, SyntaxError, tokenize.TokenError) as error:
        raise _at(path, f"no model file of lmmfast: {error!r}") from None


def _at(path: str | os.PathLike[str], text: str) -> DataError:
    return DataError(f"{os.fspath(path)}: {text}")


# -- writing ---------------------------------------------------------------------------------------


def _apart(value: Any, name: str, arrays: dict[str, NDArray[Any]]) -> Any:
    """The document without its arrays, which get names from where they stand."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in KINDS or value.dtype.fields is not None:
            raise DataError(f"{name}: an array of type {value.dtype} cannot be saved")
        member = f"arrays/{name}.npy"
        while member in arrays:  # names of columns that differ in their punctuation alone
            member = f"{member[:-4]}_.npy"
        arrays[member] = value.astype(value.dtype.newbyteorder("="), order="C", copy=False)
        return {"$array": member}
    if isinstance(value, dict):
        return {key: _apart(part, _below(name, key), arrays) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_apart(part, _below(name, str(k)), arrays) for k, part in enumerate(value)]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise DataError(f"{name}: a value of type {type(value).__name__} cannot be saved")


def _below(name: str, key: str) -> str:
    part = re.sub(r"\W", "_", key[:MAX_NAME], flags=re.ASCII) or "_"
    return f"{name}.{part}" if name else part


def _array_header(array: NDArray[Any]) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    return header.getvalue()


def _bytes_of(array: NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data if array.size else memoryview(b"")


def _sha256(header: bytes, array: NDArray[Any]) -> str:
    found = hashlib.sha256(header)
    found.update(_bytes_of(array))
    return found.hexdigest()


def _write_member(archive: zipfile.ZipFile, name: str, pieces: list[Any]) -> None:
    """Write one member, its contents beginning at a multiple of `ALIGNMENT`."""
    info = zipfile.ZipInfo(name)  # of the first day of zip's calendar: the same bytes each time
    info.file_size = sum(len(piece) for piece in pieces)
    assert archive.fp is not None
    begins = archive.fp.tell() + 30 + len(name.encode()) + 4
    padding = -begins % ALIGNMENT
    info.extra = struct.pack("<HH", _PADDING_ID, padding) + bytes(padding)
    with archive.open(info, "w") as member:
        for piece in pieces:
            member.write(piece)


# -- reading ---------------------------------------------------------------------------------------


def _contents(file: IO[bytes], map_file: bool) -> memoryview:
    if not map_file or os.name == "nt":  # Windows does not let mapped files be replaced
        return memoryview(file.read())
    return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _members(file: IO[bytes], data: memoryview) -> dict[str, memoryview]:
    """Contents of each member by name; the comment of the archive by the empty name."""
    found: dict[str, memoryview] = {}
    with zipfile.ZipFile(file) as archive:
        found[""] = memoryview(archive.comment)
        for info in archive.infolist():
            if info.filename in found:
                raise DataError(f"damaged: {info.filename!r} is there twice")
            if info.filename != DOCUMENT and not _MEMBER.fullmatch(info.filename):
                raise DataError(f"no model file of lmmfast: it holds {info.filename!r}")
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 0x1:
                raise DataError(f"no model file of lmmfast: {info.filename!r} is compressed")
            at = info.header_offset
            signature, name_length, extra_length = _LOCAL_HEADER.unpack_from(data, at)
            start = at + _LOCAL_HEADER.size + name_length + extra_length
            if signature != b"PK\x03\x04" or start + info.file_size > len(data):
                raise DataError(f"damaged: {info.filename!r} is not whole")
            found[info.filename] = data[start : start + info.file_size]
    return found


def _document(members: dict[str, memoryview], comment: bytes, version: int) -> dict[str, Any]:
    """Read ``model.json``, which the comment vouches for."""
    known = _COMMENT.fullmatch(comment)
    if known is None or DOCUMENT not in members:
        raise DataError("a zip archive, but no model file of lmmfast, or a damaged one")
    if int(known[1]) > version:
        raise DataError(
            f"written in format {int(known[1])} by a newer lmmfast; this one reads up to format "
            f"{version}: upgrade lmmfast"
        )
    text = bytes(members[DOCUMENT])
    if hashlib.sha256(text).hexdigest().encode() != known[2]:
        raise DataError(f"damaged: the checksum of {DOCUMENT} is another")
    document = json.loads(text)
    if not isinstance(document, dict):
        raise DataError("no model file of lmmfast")
    return document


def _arrays(
    document: dict[str, Any], members: dict[str, memoryview], verify: bool
) -> dict[str, NDArray[Any]]:
    """Arrays by the names of their members."""
    listed = document.pop("arrays")
    if set(listed) != set(members) - {DOCUMENT}:
        raise DataError("damaged: arrays are missing, or there are others")
    found = {}
    for name, about in listed.items():
        contents = members[name]
        if len(contents) != about["bytes"]:
            raise DataError(f"damaged: {name} has {len(contents)} bytes, not {about['bytes']}")
        if verify and hashlib.sha256(contents).hexdigest() != about["sha256"]:
            raise DataError(f"damaged: the checksum of {name} is another")
        found[name] = _array(name, contents)
    return found


def _array(name: str, contents: memoryview) -> NDArray[Any]:
    """Interpret the contents of an ``.npy`` member, where they lie."""
    stream = io.BytesIO(contents[:MAX_ARRAY_HEADER])
    if np.lib.format.read_magic(stream) != (1, 0):
        raise DataError(f"{name}: another version of NumPy's format")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.kind not in KINDS or dtype.hasobject or dtype.fields is not None or fortran:
        raise DataError(f"{name}: an array of type {dtype} has no place in a model file")
    values = contents[stream.tell() :]
    if len(values) != math.prod(shape) * dtype.itemsize:
        raise DataError(f"damaged: {name} has another size than its shape {shape} says")
    array = np.frombuffer(values, dtype=dtype).reshape(shape)
    if not dtype.isnative:
        return array.astype(dtype.newbyteorder("="))
    return array if array.flags.aligned else array.copy()


def _together(value: Any, arrays: dict[str, NDArray[Any]], depth: int) -> Any:
    """The document with its arrays."""
    if depth > MAX_DEPTH:
        raise DataError("no model file of lmmfast: its parts lie too deep in each other")
    if isinstance(value, list):
        return [_together(part, arrays, depth + 1) for part in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        if "$array" in value:
            return arrays[value["$array"]]
        if "$float" in value:
            return _NOT_FINITE[value["$float"]]
    return {key: _together(part, arrays, depth + 1) for key, part in value.items()}
