"""Teaching labs, one package each, and the grader for what students hand in."""
