"""Integrations of longtail with other trainers: one optional module each.

Import the one you need, for instance `from longtail.integrations.huggingface import trainer_loss`;
nothing is imported here, so that no other library is required.
"""
