"""Result files -> the tables of the documents."""
