"""Save fits to files and load them: one format for all kinds of fits."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from lmmfast.errors import DataError
from lmmfast.persist.archive import MALFORMED, read_archive, write_archive

#: Of files that are written; all up to it are read.
FORMAT = 1

Path = str | os.PathLike[str]


def save(fit: Any, path: Path, effects: bool = True, clusters: bool = False) -> None:
    """Save a fit; see `LMMResult.save`."""
    import lmmfast

    kind, document = _document(fit, effects)
    if clusters:
        from lmmfast.persist.clusters import clusters_to_document

        document["packed"] = clusters_to_document(fit)
    document = {"lmmfast": lmmfast.__version__, "kind": kind, **document}
    write_archive(path, document, FORMAT)


def load(
    path: Path,
    *,
    mmap: bool = True,
    verify: bool = True,
    context: Mapping[str, Any] | None = None,
    trust: bool = False,
) -> Any:
    """Load a fit that was saved.

    Parameters
    ----------
    path : path
        Of a file that ``save`` of a fit has written.
    mmap : bool
        Map the file into memory: arrays are read when they are used, and shared by all processes
        that map it. Replacing the file does not disturb them. False, and on Windows: read it now.
    verify : bool
        Compare checksums of all arrays, which reads them once. That of the rest always is compared.
    context : mapping, optional
        Functions of your own that the formula calls: a file holds none.
    trust : bool
        Allow formulas that can run any code when new rows are predicted, such as
        ``x - x.mean()``. By default such a file is refused: what it may call are the transforms of
        formulas, NumPy's functions and those in ``context``.

    Returns
    -------
    LMMResult, ManyFits or LMMByResult
        What was saved, with the same bits, but without rows: what takes these is a DataError.
        With packed clusters, if they were saved, rows can be appended.

    Raises
    ------
    DataError
        The file is damaged, of a newer format, or no such file; functions are missing from
        ``context``; the formula is not to be trusted.
    OSError
        There is no file of this name, or it cannot be read.

    Notes
    -----
    Nothing in a file is run on loading. docs/production.md describes the format.

    Examples
    --------
    >>> import lmmfast as lf, os, tempfile
    >>> fit = lf.lmm("Reaction ~ Days + (Days | Subject)", lf.datasets.sleepstudy())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fit.save(os.path.join(folder, "sleep.lmm"))
    ...     again = lf.load(os.path.join(folder, "sleep.lmm"), mmap=False)
    >>> again.llf == fit.llf
    True
    """
    document = read_document(path, mmap=mmap, verify=verify)
    try:
        return _fit_of(document, dict(context or {}), trust)
    except MALFORMED as error:
        if isinstance(error, DataError):
            raise DataError(f"{os.fspath(path)}: {error}") from None
        raise DataError(f"{os.fspath(path)}: no model file of lmmfast: {error!r}") from None


def _fit_of(document: Mapping[str, Any], context: Mapping[str, Any], trust: bool) -> Any:
    """Make a fit of a document."""
    reader = _READERS.get(document["kind"])
    if reader is None:
        raise DataError(f"holds {document['kind']!r}, which is no kind of fit")
    return reader(document, context, trust)


def read_document(path: Path, *, mmap: bool = True, verify: bool = True) -> dict[str, Any]:
    """Read the document of a file, with its arrays; nothing is made of it.

    Raises
    ------
    DataError, OSError
        As `load`.
    """
    document = read_archive(path, FORMAT, map_file=mmap, verify=verify)
    if not {"kind", "lmmfast"} <= document.keys():
        raise DataError(f"{os.fspath(path)}: no model file of lmmfast")
    return document


def _document(fit: Any, effects: bool) -> tuple[str, dict[str, Any]]:
    from lmmfast.batch.by_result import LMMByResult
    from lmmfast.batch.many_result import ManyFits
    from lmmfast.persist.batches import by_to_document, many_to_document
    from lmmfast.persist.fits import fit_to_document
    from lmmfast.persist.results import fitted_of

    if isinstance(fit, ManyFits):
        return "fit_many", many_to_document(fit)
    if isinstance(fit, LMMByResult):
        return "lmm_by", by_to_document(fit)
    return "fit", fit_to_document(fitted_of(fit, effects))


def _read_fit(document: Mapping[str, Any], context: Mapping[str, Any], trust: bool) -> Any:
    from lmmfast.persist.fits import fit_from_document
    from lmmfast.persist.results import result_of

    fit = result_of(fit_from_document(document, context, trust))
    packed = document.get("packed")
    if packed is not None:
        from lmmfast.persist.clusters import give_clusters

        give_clusters(fit, packed)
    return fit


def _read_many(document: Mapping[str, Any], context: Mapping[str, Any], trust: bool) -> Any:
    from lmmfast.persist.batches import many_from_document

    return many_from_document(document)


def _read_by(document: Mapping[str, Any], context: Mapping[str, Any], trust: bool) -> Any:
    from lmmfast.persist.batches import by_from_document

    return by_from_document(document, context, trust)


_READERS: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any], bool], Any]] = {
    "fit": _read_fit,
    "fit_many": _read_many,
    "lmm_by": _read_by,
}
