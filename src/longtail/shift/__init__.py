"""temporary."""
from longtail.shift.adjust import adjust
from longtail.shift.priors import resolve_prior
