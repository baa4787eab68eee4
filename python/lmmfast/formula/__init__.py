"""lme4's formulas: their language, their factors and the columns that they make."""
