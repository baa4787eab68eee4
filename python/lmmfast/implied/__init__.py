"""What a fitted model implies for rows: covariances and autocorrelations."""
