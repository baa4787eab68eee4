"""What users hand in: tables and columns of any library, read without copies where possible."""
