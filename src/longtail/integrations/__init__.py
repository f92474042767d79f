"""Parts of longtail inside the trainers that people already use: one file each, each optional.

Import the one you need, for instance `from longtail.integrations.huggingface import trainer_loss`;
nothing is imported here, so that no other library is required.
"""
