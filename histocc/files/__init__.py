"""Files: tables, weights and checkpoints read safely, everything written whole, folders checked once."""
