"""Training stages from clips to a distilled student, one file per stage."""
