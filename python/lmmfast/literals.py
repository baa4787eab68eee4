"""Words that options take, as types: a type checker finds a misspelt one."""

from typing import Literal

EngineName = Literal["auto", "moments", "dense", "markov", "nested", "crossed", "reference"]
Missing = Literal["drop", "exclude", "raise"]
RankDeficient = Literal["drop", "raise"]
Identifiable = Literal["raise", "warn"]
NewLevels = Literal["population", "missing", "error"]
Interval = Literal["confidence", "prediction"]
Uncertainty = Literal["beta", "theta"]
ResidualPart = Literal["process", "errors", "none"]
ResidualKind = Literal["response", "pearson", "studentized", "normalized"]
CovarianceKind = Literal["correlation", "covariance"]
LagKind = Literal["correlation", "semivariogram"]
LagResiduals = Literal["marginal", "normalized"]
