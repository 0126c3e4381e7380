"""How good predictions are: accuracies over blocks of tokens, and figures over sets of codes."""
