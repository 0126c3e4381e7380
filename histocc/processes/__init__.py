"""The processes of a run: who am I, who else is there, and the signals that end it."""
