"""Distributed jobs whose ranks all report: a step's losses become one observation, and all get one advice.

It may import runs and live runs; no messages of the contract.
"""
