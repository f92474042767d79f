"""Estimators of a class prior: what `estimate_prior` and `protocol_table` compute with."""
