"""Model files that are damaged, foreign or hostile are DataErrors; writers leave whole files."""

import hashlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import struct
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lmmfast as lf
from lmmfast.persist.archive import read_archive, write_archive

GOLDEN = Path(__file__).parents[1] / "golden" / "0.1.0"
TREE = {
    "kind": "fit",
    "lmmfast": "0",
    "numbers": np.arange(5.0),
    "nothing": None,
    "odd": [float("nan"), float("-inf"), {"a b": np.arange(3), "a_b": np.arange(4)}],
    "empty": np.empty((0, 3)),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(10)[::3],
    "big": np.arange(3.0).astype(">f8"),
    "times": np.array(["2020-01-01"], dtype="M8[D]"),
    "scalar": np.float64(0.1),
}


@pytest.fixture
def file(tmp_path):
    write_archive(tmp_path / "m.lmm", TREE, 1)
    return tmp_path / "m.lmm"


def same(found, expected):
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[k], expected[k]) for k in found)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(expected, np.ndarray):
        return found.shape == expected.shape and np.array_equal(found, expected)
    return found == expected or (found != found and expected != expected)


@pytest.mark.parametrize("map_file", [True, False])
def test_what_is_written_is_read(file, map_file):
    found = read_archive(file, 1, map_file=map_file)
    assert same(found, TREE)
    assert found["big"].dtype == np.float64
    assert all(array.flags.aligned for array in (found["numbers"], found["fortran"]))


def test_the_same_bytes_and_places_of_64(file, tmp_path):
    write_archive(tmp_path / "again.lmm", TREE, 1)
    contents = file.read_bytes()
    assert (tmp_path / "again.lmm").read_bytes() == contents
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        for info in archive.infolist():
            name, extra = struct.unpack_from("<HH", contents, info.header_offset + 26)
            assert (info.header_offset + 30 + name + extra) % 64 == 0
            assert info.compress_type == zipfile.ZIP_STORED
        arrays = {name for name in archive.namelist() if name.endswith(".npy")}
        for name in arrays:  # NumPy itself reads them
            np.load(io.BytesIO(archive.read(name)), allow_pickle=False)
        assert len(arrays) == 8


@pytest.mark.parametrize("name", ["m.lmm", "many.lmm"])
def test_every_length_but_the_whole_one(file, name, tmp_path):
    whole = file.read_bytes() if name == "m.lmm" else (GOLDEN / name).read_bytes()
    part = tmp_path / "part.lmm"
    for length in [*range(0, len(whole), 7), len(whole) - 1]:
        part.write_bytes(whole[:length])
        with pytest.raises(lf.DataError, match=r"part.lmm: .*(damaged|no model file)"):
            lf.load(part)


def test_every_byte_changed(file, tmp_path):
    """A change is found, or it is in a date or the like that says nothing."""
    whole, unnoticed = file.read_bytes(), 0
    changed = tmp_path / "changed.lmm"
    for k in range(len(whole)):
        changed.write_bytes(whole[:k] + bytes([whole[k] ^ (1 << k % 8)]) + whole[k + 1 :])
        try:
            found = read_archive(changed, 1)
        except lf.DataError:
            continue
        assert same(found, TREE), k
        unnoticed += 1
    assert unnoticed < 0.5 * len(whole)  # padding, dates


@pytest.mark.parametrize("name", ["intercept_slope", "many", "segments"])
def test_flipped_bits_of_fits(name, tmp_path):
    whole = bytearray((GOLDEN / f"{name}.lmm").read_bytes())
    rng = np.random.default_rng(5)
    expected = repr(lf.load(GOLDEN / f"{name}.lmm"))
    for k in rng.integers(0, len(whole), 150):
        flipped = bytearray(whole)
        flipped[k] ^= 1 << int(rng.integers(8))
        (tmp_path / "f.lmm").write_bytes(flipped)
        try:
            assert repr(lf.load(tmp_path / "f.lmm")) == expected
        except lf.DataError as error:
            assert "f.lmm: " in str(error)


def test_checksums_may_be_left_out(file):
    contents = bytearray(file.read_bytes())
    at = contents.index(np.arange(5.0).tobytes())
    contents[at] ^= 1
    file.write_bytes(contents)
    with pytest.raises(lf.DataError, match=r"the checksum of arrays/numbers.npy is another"):
        read_archive(file, 1)
    assert read_archive(file, 1, verify=False)["numbers"][0] != 0


def forged(path, members, comment=None, document=None, **options):
    """An archive with right checksums, whatever is in it."""
    tree = {"kind": "fit", "lmmfast": "0", "arrays": {}} if document is None else document
    for name, contents in members.items():
        digest = hashlib.sha256(contents).hexdigest()
        tree.setdefault("arrays", {})[name] = {"bytes": len(contents), "sha256": digest}
    text = json.dumps(tree).encode()
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("model.json", text)
        for name, contents in members.items():
            archive.writestr(name, contents)
        digest = hashlib.sha256(text).hexdigest()
        archive.comment = f"lmmfast 1 sha256 {digest}".encode() if comment is None else comment
    return path


def npy(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    "name",
    ["../a.npy", "/tmp/a.npy", "arrays/../a.npy", "a.npy", "arrays/a.pkl", "arrays\\a.npy", "x"],
)
def test_names_of_members(tmp_path, name):
    path = forged(tmp_path / "m.lmm", {name: npy(np.arange(3))})
    with pytest.raises(lf.DataError, match="no model file of lmmfast: it holds"):
        lf.load(path)
    assert os.listdir(tmp_path) == ["m.lmm"]


class Bomb:
    def __reduce__(self):
        return os.system, ("touch exploded",)


@pytest.mark.parametrize(
    "contents, why",
    [
        (npy(np.array([Bomb()], dtype=object), allow_pickle=True), "type object has no place"),
        (npy(np.zeros(2, dtype=[("a", "f8")])), "has no place"),
        (npy(np.array(["text"])), "has no place"),
        (npy(np.arange(3))[:-8], "another size than its shape"),
        (b"\x93NUMPY\x02\x00" + npy(np.arange(3))[8:], "another version"),
        (b"nothing of the kind", "no model file"),
        (b"\x93NUMPY\x01\x00\x10\x00{'descr': (((((((", "no model file"),
        (b"", "no model file"),
    ],
)
def test_arrays_that_have_no_place(tmp_path, contents, why, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = forged(tmp_path / "m.lmm", {"arrays/a.npy": contents})
    with pytest.raises(lf.DataError, match=why):
        lf.load(path)
    assert os.listdir(tmp_path) == ["m.lmm"]


def test_archives_that_are_not_ours(tmp_path):
    path = tmp_path / "m.lmm"
    with pytest.raises(lf.DataError, match=r"m.lmm: .* no model file"):
        path.write_bytes(b"")
        lf.load(path)
    with pytest.raises(lf.DataError, match="damaged, or no model file"):
        path.write_bytes(os.urandom(3000))
        lf.load(path)
    np.savez(tmp_path / "m", a=np.arange(3))
    with pytest.raises(lf.DataError, match=r"no model file of lmmfast: it holds 'a.npy'"):
        lf.load(tmp_path / "m.npz")
    with pytest.raises(lf.DataError, match="is compressed"):
        lf.load(forged(path, {}, compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(lf.DataError, match="no model file of lmmfast, or a damaged one"):
        lf.load(forged(path, {}, comment=b"hello"))
    with pytest.raises(lf.DataError, match="arrays are missing, or there are others"):
        lf.load(forged(path, {}, document={"arrays": {"arrays/a.npy": {}}}))
    for document in ({}, {"arrays": {}}, {"kind": "fit", "lmmfast": "0", "arrays": {}}):
        with pytest.raises(lf.DataError, match="no model file of lmmfast"):
            lf.load(forged(path, {}, document=document))
    with pytest.raises(lf.DataError, match="holds 'glm', which is no kind of fit"):
        lf.load(forged(path, {}, document={"kind": "glm", "lmmfast": "0", "arrays": {}}))
    with pytest.raises(FileNotFoundError):
        lf.load(tmp_path / "nowhere.lmm")
    with pytest.raises((IsADirectoryError, PermissionError)):
        lf.load(tmp_path)


def test_a_member_twice(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(tmp_path / "m", "w") as z:
        z.writestr("model.json", b"{}")
        z.writestr("model.json", b"{}")
    with pytest.raises(lf.DataError, match="is there twice"):
        lf.load(tmp_path / "m")


def test_very_deep_documents(tmp_path):
    deep = text = {}
    for _ in range(200):
        deep["a"] = {}
        deep = deep["a"]
    with pytest.raises(lf.DataError, match="too deep"):
        lf.load(forged(tmp_path / "m.lmm", {}, document={"arrays": {}, "a": text}))


def test_newer_formats(file):
    contents = file.read_bytes()
    file.write_bytes(contents.replace(b"lmmfast 1 sha256", b"lmmfast 7 sha256"))
    with pytest.raises(lf.DataError, match=r"format 7 by a newer lmmfast.*upgrade lmmfast"):
        lf.load(file)


@pytest.mark.parametrize("expression", ["__import__('os').system('touch exploded')", "t.mean()"])
@pytest.mark.parametrize("how", ["python", "literal"])
def test_formulas_put_into_a_file(tmp_path, monkeypatch, expression, how):
    """Somebody changes the expression of a model and all checksums."""
    monkeypatch.chdir(tmp_path)
    members, document = {}, None
    with zipfile.ZipFile(GOLDEN / "functions.lmm") as archive:
        for name in archive.namelist():
            members[name] = archive.read(name)
    document = json.loads(members.pop("model.json"))
    for _, part in document["spec"]["parts"]:
        for entry in (part["model"] or {"structure": []})["structure"]:
            for factor in entry["factors"]:
                factor[:] = [expression, how]
            for scoped in entry["scoped"]:
                scoped["factors"] = [[expression, False]]
    path = forged(tmp_path / "m.lmm", members, document=document)
    with pytest.raises(lf.DataError, match=r"could run any code|no model file"):
        lf.load(path)
    assert os.listdir(tmp_path) == ["m.lmm"]


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array([None]), np.array(["a"]), 1j])
def test_values_that_cannot_be_written(tmp_path, value):
    with pytest.raises(lf.DataError, match=r"a\.0: a.* of type .* cannot be saved"):
        write_archive(tmp_path / "m.lmm", {"a": [value]}, 1)
    assert os.listdir(tmp_path) == []


# -- writers ---------------------------------------------------------------------------------------


def write_often(path, value, n):
    for _ in range(n):
        write_archive(path, {"kind": "fit", "lmmfast": "0", "a": np.full(50_000, value)}, 1)


@pytest.mark.skipif(os.name == "nt", reason="a file that is open is not replaced there")
def test_two_writers_and_readers(tmp_path):
    """Each time one whole file: that of one writer or of the other."""
    path = tmp_path / "m.lmm"
    write_often(path, 0.0, 1)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_often, args=(path, k, 40)) for k in (1.0, 2.0)]
    for writer in writers:
        writer.start()
    seen, held = set(), read_archive(path, 1)["a"]
    while any(writer.is_alive() for writer in writers):
        found = read_archive(path, 1)["a"]
        assert len(set(found.tolist())) == 1
        seen.add(float(found[0]))
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert seen & {1.0, 2.0}
    assert set(held.tolist()) == {0.0}  # what is mapped stays as it was
    assert os.listdir(tmp_path) == ["m.lmm"]


def test_a_failed_writer_leaves_the_old_file(file, monkeypatch):
    before = file.read_bytes()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_archive(file, TREE, 1)
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == [file.name]


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs limits of the size of files")
def test_a_full_disk(tmp_path):
    code = """
        import resource, signal, sys, numpy as np
        from lmmfast.persist.archive import write_archive
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            write_archive(sys.argv[1], {"a": np.zeros(100_000)}, 1)
        except OSError as error:
            print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "m.lmm")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "File too large" in done.stdout
    assert os.listdir(tmp_path) == []


def test_rights_of_a_new_file(file):
    (file.parent / "plain").write_bytes(b"")
    assert file.stat().st_mode == (file.parent / "plain").stat().st_mode


def test_loading_while_it_is_replaced(tmp_path):
    first = lf.lmm("Reaction ~ Days + (Days | Subject)", lf.datasets.sleepstudy())
    path = tmp_path / "m.lmm"
    first.save(path)
    score = lf.load(path).scorer()
    before = score.one(Subject="S308", Days=3)
    shutil.copy(GOLDEN / "nested.lmm", tmp_path / "other.lmm")
    os.replace(tmp_path / "other.lmm", path)
    assert score.one(Subject="S308", Days=3) == before
    assert isinstance(lf.load(path).random_effects, dict)


def test_paths_of_all_kinds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit = lf.lmm("Reaction ~ Days + (Days | Subject)", lf.datasets.sleepstudy())
    fit.save("a.lmm")
    fit.save(Path("b.lmm"))
    for path in ("a.lmm", Path("b.lmm"), os.fsencode("a.lmm").decode()):
        pd.testing.assert_series_equal(lf.load(path).params, fit.params)
    with pytest.raises(FileNotFoundError):
        fit.save(tmp_path / "nowhere" / "m.lmm")
