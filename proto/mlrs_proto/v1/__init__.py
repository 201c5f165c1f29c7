"""Stubs of the package `mlrs.v1`, generated from `proto/mlrs/v1/advisor.proto` by `make proto`."""
