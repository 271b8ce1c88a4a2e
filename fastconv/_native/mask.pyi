"""The mask of dropout, for its own steps and for those that carry it."""
