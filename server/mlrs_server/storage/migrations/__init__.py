"""How tables came to be what they are, one revision after another; run by Alembic, without an ini file."""
