"""Simulate the data set ``multicentre`` anew: ``python docs/make_multicentre.py``.

Writes python/lmmfast/datasets/multicentre.csv. The numbers below are the truth that the estimates
of docs/tutorial_levels.md can be held against.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

FILE = Path(__file__).parents[1] / "python" / "lmmfast" / "datasets" / "multicentre.csv"
MONTHS = np.array([0, 1, 2, 4])
MEAN, TREND, EFFECT = 152.0, -0.8, -1.6  # mmHg; mmHg a month in both arms; more under treatment
CENTER_SD = 5.0
PATIENT_SD, SLOPE_SD, CORRELATION = 9.0, 1.2, -0.2
RESIDUAL_SD = 6.0


def main() -> None:
    """Write the file."""
    rng = np.random.default_rng(32)
    sizes = np.round(np.exp(rng.normal(3.1, 0.55, 24))).astype(int)
    cross = CORRELATION * PATIENT_SD * SLOPE_SD
    D = np.array([[PATIENT_SD**2, cross], [cross, SLOPE_SD**2]])
    rows = []
    for center, n_patients in enumerate(sizes, start=1):
        b = rng.normal(0.0, CENTER_SD)
        for patient in range(1, n_patients + 1):
            treated = (center + patient) % 2 == 0
            c, slope = rng.multivariate_normal([0.0, 0.0], D)
            mean = MEAN + b + c + (TREND + EFFECT * treated + slope) * MONTHS
            sbp = np.round(mean + rng.normal(0.0, RESIDUAL_SD, len(MONTHS)), 1)
            arm = "treatment" if treated else "placebo"
            for month, value in zip(MONTHS, sbp, strict=True):
                rows.append((f"C{center:02d}", patient, arm, int(month), float(value)))
                # Who has high pressure comes back less often: missing at random given the past.
                if rng.random() < 1.0 / (1.0 + np.exp(2.6 - 0.03 * (value - MEAN))):
                    break
    table = pd.DataFrame(rows, columns=["center", "patient", "arm", "month", "sbp"])
    table.to_csv(FILE, index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
