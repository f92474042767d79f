"""Training: the loop, its settings, checkpoints and run folders."""

from longtail.training.checkpoint import Checkpoints
from longtail.training.config import Config
from longtail.training.embed import Embeddings, embed_dataset
from longtail.training.evaluate import judge, judge_protocol
from longtail.training.loop import fit, predict_logits
from longtail.training.predict import Classified, predict_files
from longtail.training.processes import is_first
from longtail.training.run import Predictions, Run
from longtail.training.train import train_run

__all__ = [
    "Checkpoints",
    "Classified",
    "Config",
    "Embeddings",
    "Predictions",
    "Run",
    "embed_dataset",
    "fit",
    "is_first",
    "judge",
    "judge_protocol",
    "predict_files",
    "predict_logits",
    "train_run",
]
