"""Database engines: SQLite and PostgreSQL, what differs between them, and what their failures mean.

It may import SQLAlchemy and its drivers; never the tables' contents.
"""
