"""Predictions as an ONNX graph, in double precision and in the order of `lmmfast.prediction`.

A label becomes a row of the random effects by ``LabelEncoder`` and ``Gather``; groups that the fit
did not have get a row of zeros.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lmmfast.data.whole_files import replacing
from lmmfast.errors import TooLargeError, UnsupportedModelError
from lmmfast.formula.spec import FormulaSpec, Indicator
from lmmfast.prediction.new_rows import FactorEffects, Predictor
from lmmfast.prediction.one_row import OneRow, one_row

#: Of ONNX and of its operators for machine learning; runtimes of 2024 and later have them.
OPSET, ML_OPSET, IR_VERSION = 17, 4, 9
#: Bytes that a protocol buffer holds.
MAX_BYTES = 2_000_000_000
OUTPUT = "prediction"
#: What names of values within the graph begin with, so that they are those of no column.
INNER = "lmmfast: "


def write_onnx(
    predictor: Predictor, path: str | os.PathLike[str], about: Mapping[str, str]
) -> None:
    """Write the predictions of new rows as a graph; see `LMMResult.to_onnx`.

    Parameters
    ----------
    about : mapping
        Facts that the file has in its metadata.
    """
    try:
        import onnx
    except ImportError:
        raise ImportError("to_onnx needs onnx: pip install 'lmmfast[onnx]'") from None
    model = _Graph(_plan(predictor)).model(about)
    onnx.checker.check_model(model)
    with replacing(Path(path)) as file:
        file.write(model.SerializeToString())


def _plan(predictor: Predictor) -> OneRow:
    """How the columns are made, if they are products.

    Raises
    ------
    UnsupportedModelError
        Formulas with functions, labels that are no integers or texts.
    TooLargeError
        More than 2 GB.
    """
    plan = one_row(predictor)
    if plan is None:
        raise UnsupportedModelError(
            "to_onnx is for formulas of columns, their products and categories of text: compute "
            f"{_function(predictor)} as a column before the fit"
        )
    if not (plan.numbers or plan.levels or predictor.effects):
        raise UnsupportedModelError("to_onnx: the predictions do not depend on anything")
    size = sum(own.b.nbytes + 24 * len(own.b) for own in predictor.effects)
    if size > MAX_BYTES:
        raise TooLargeError(
            f"to_onnx: {size / 1e9:.1f} GB, but ONNX files hold 2 GB: use fit.save(), or "
            "level='population'"
        )
    for own in predictor.effects:
        if own.labels.dtype.kind not in "iuO":
            raise UnsupportedModelError(
                f"to_onnx: labels of {own.name!r} are of type {own.labels.dtype}: use integers or "
                "text"
            )
    return plan


def _function(predictor: Predictor) -> str:
    """An expression that is evaluated by formulaic."""
    spec = predictor.spec
    if isinstance(spec, FormulaSpec):
        for part in spec.parts.values():
            for name, recipe in zip(part.names, part.recipes, strict=True):
                if recipe.factors is None:
                    return repr(name)
    return "everything else"


class _Graph:
    """The graph of one plan, node by node; inputs are called as its columns.

    Parameters
    ----------
    plan : OneRow
    """

    def __init__(self, plan: OneRow) -> None:
        from onnx import TensorProto, helper

        self._helper, self._types = helper, TensorProto
        self.plan = plan
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs: dict[str, int] = {}
        self._known: dict[Any, str] = {}

    def model(self, about: Mapping[str, str]) -> Any:
        """Put all nodes into a model."""
        result, output = self._sum(), OUTPUT
        while output in self.inputs:
            output += "_"
        self.nodes.append(self._helper.make_node("Identity", [result], [output]))
        graph = self._helper.make_graph(
            self.nodes,
            "lmmfast",
            [
                self._helper.make_tensor_value_info(name, kind, ["rows"])
                for name, kind in self.inputs.items()
            ],
            [self._helper.make_tensor_value_info(output, self._types.DOUBLE, ["rows"])],
            self.constants,
        )
        opsets = [
            self._helper.make_opsetid("", OPSET),
            self._helper.make_opsetid("ai.onnx.ml", ML_OPSET),
        ]
        model = self._helper.make_model(graph, opset_imports=opsets, producer_name="lmmfast")
        model.ir_version = IR_VERSION
        self._helper.set_model_props(model, dict(about))
        return model

    def _sum(self) -> str:
        """X beta + Z b, summed in the order of `Predictor`."""
        plan, predictor = self.plan, self.plan.predictor
        terms = [
            (float(coefficient), factors)
            for coefficient, factors in zip(predictor.beta, plan.X, strict=True)
        ]
        constant = 0.0
        while terms and not terms[0][1]:  # what comes before the first column is a number
            constant += terms.pop(0)[0]
        total = self._number(constant)
        for coefficient, factors in terms:
            total = self._add(total, self._times(self._product(factors), coefficient))
        for own in predictor.effects:
            rows = self._rows_of(own)
            for k, column in enumerate(own.columns.tolist()):
                total = self._add(total, self._effect(own, rows, k, plan.Z[column]))
        if plan.offset is not None:
            total = self._add(total, self._input(plan.offset, self._types.DOUBLE))
        for name in plan.levels:
            total = self._add(total, self._nan_if_unknown(name))
        return total

    def _effect(
        self, own: FactorEffects, rows: str, k: int, factors: tuple[str | Indicator, ...]
    ) -> str:
        table = self._constant(f"b {own.name} {k}", np.append(own.b[:, k], 0.0))
        effect = self._node("Gather", [table, rows])
        return self._node("Mul", [self._product(factors), effect]) if factors else effect

    def _rows_of(self, own: FactorEffects) -> str:
        """Row of each group among the effects; the last one, of zeros, for those not known."""
        labels = np.asarray(own.labels)
        text = labels.dtype.kind == "O"
        kind = self._types.STRING if text else self._types.INT64
        keys = labels.tolist() if text else labels.astype(np.int64)
        return self._encoded(self._input(own.name, kind), keys, len(labels))

    def _codes(self, name: str) -> str:
        """Code of a level of a factor column; -1 for levels that the fit has not seen."""
        if ("codes", name) not in self._known:
            levels = list(self.plan.levels[name])
            column = self._input(name, self._types.STRING)
            self._known["codes", name] = self._encoded(column, levels, -1)
        return self._known["codes", name]

    def _encoded(self, column: str, keys: Any, otherwise: int) -> str:
        if isinstance(keys, list):
            encoded = [key.encode() for key in keys]
            known = self._helper.make_tensor("keys", self._types.STRING, [len(keys)], encoded)
        else:
            known = self._tensor("keys", keys)
        return self._node(
            "LabelEncoder",
            [column],
            domain="ai.onnx.ml",
            keys_tensor=known,
            values_tensor=self._tensor("values", np.arange(len(keys))),
            default_tensor=self._tensor("default", np.array([otherwise])),
        )

    def _product(self, factors: tuple[str | Indicator, ...]) -> str:
        if not factors:
            return self._number(1.0)
        values = [self._factor(factor) for factor in factors]
        product = values[0]
        for value in values[1:]:
            product = self._node("Mul", [product, value])
        return product

    def _factor(self, factor: str | Indicator) -> str:
        if isinstance(factor, str):
            return self._input(factor, self._types.DOUBLE)
        if factor not in self._known:
            code = self._constant(f"code {factor.code}", np.array(factor.code))
            same = self._node("Equal", [self._codes(factor.column), code])
            self._known[factor] = self._node("Cast", [same], to=self._types.DOUBLE)
        return self._known[factor]

    def _nan_if_unknown(self, name: str) -> str:
        zero = self._constant("code 0", np.array(0))
        unknown = self._node("Less", [self._codes(name), zero])
        return self._node("Where", [unknown, self._number(np.nan), self._number(0.0)])

    def _times(self, value: str, coefficient: float) -> str:
        return self._node("Mul", [self._number(coefficient), value])

    def _add(self, one: str, other: str) -> str:
        return self._node("Add", [one, other])

    def _number(self, value: float) -> str:
        return self._constant(f"number {value!r}", np.array(value))

    def _constant(self, name: str, value: Any) -> str:
        name = INNER + name
        if name not in self._known:
            self.constants.append(self._tensor(name, value))
            self._known[name] = name
        return name

    def _tensor(self, name: str, value: Any) -> Any:
        from onnx import numpy_helper

        return numpy_helper.from_array(np.ascontiguousarray(value).reshape(np.shape(value)), name)

    def _input(self, name: str, kind: int) -> str:
        if self.inputs.setdefault(name, kind) != kind:
            raise UnsupportedModelError(
                f"to_onnx: column {name!r} is a number and a group of text, or a group and a number"
            )
        return name

    def _node(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{INNER}value {len(self.nodes)}"
        self.nodes.append(self._helper.make_node(operator, inputs, [name], **attributes))
        return name
