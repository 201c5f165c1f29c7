"""The revisions. Each is written once and stays: nothing here imports the tables of today."""
