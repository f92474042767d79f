"""Training: the loop, its settings, checkpoints and run folders."""

from longtail.training.checkpoint import Checkpoints
from longtail.training.config import Config
from longtail.training.distributed import is_first
from longtail.training.embed import Embeddings, embed_dataset
from longtail.training.evaluate import evaluate_predictions, evaluate_protocol
from longtail.training.loop import fit, predict_logits
from longtail.training.predict import Classified, Written, predict_files, write_predictions
from longtail.training.predictions import Predictions
from longtail.training.run import Run, RunFolder
from longtail.training.task import Task
from longtail.training.train import train_run

__all__ = [
    "Checkpoints",
    "Classified",
    "Config",
    "Embeddings",
    "Predictions",
    "Run",
    "RunFolder",
    "Task",
    "Written",
    "embed_dataset",
    "evaluate_predictions",
    "evaluate_protocol",
    "fit",
    "is_first",
    "predict_files",
    "predict_logits",
    "train_run",
    "write_predictions",
]
