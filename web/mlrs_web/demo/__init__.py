"""Daemons that are started for the dashboard: on the recorded demo, or on a folder of data."""
