"""What all masks of this package agree on."""

IGNORED = 255  # value of a pixel that counts for nothing
