"""The explorer: the shipped results as one page to play with, without server or network."""
