"""Estimators of a class prior, used by `estimate_prior` and `protocol_table`."""
