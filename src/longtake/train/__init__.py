"""From clips to a distilled student, one file a stage."""
