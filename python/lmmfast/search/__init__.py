"""The search for the optimum, and the certificate of what it found."""
