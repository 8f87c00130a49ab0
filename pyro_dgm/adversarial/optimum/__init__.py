"""How far is a game from its optimum? The lower bounds of a fresh critic."""
