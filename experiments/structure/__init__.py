"""What a reader of the code meets, as numbers: sizes, comments, names, copies and walks."""
