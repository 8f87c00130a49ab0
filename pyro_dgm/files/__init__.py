"""The one room that writes and reads files: whole or not at all, checked by digest, refused by name."""
