"""How several draws of a datum are run: in a plate, or as rows; chosen by the values that either gives."""
