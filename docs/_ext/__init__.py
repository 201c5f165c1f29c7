"""Extensions of Sphinx that make the reference from the sources, and keep links to the repository working."""
