from pathlib import Path

import pytest
import torch

from longtail.data import DataConfig, Dataset, Split
from longtail.tasks import train
from longtail.training import Config, Run


def dataset(size: int) -> Dataset:
    """Two classes, bright and dark; five images and three to learn from, one each to test."""
    labels = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 0, 1])
    levels = (labels * 200 + 20).to(torch.uint8)
    whole = Split(
        labels,
        torch.arange(10),
        levels[:, None, None, None].expand(-1, 3, size, size).contiguous(),
        tuple(map(str, range(10))),
    )
    train, test = whole.take(torch.arange(8)), whole.take(torch.arange(8, 10))
    return Dataset("shades", ("dark", "bright"), train, None, test, size)


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
def test_a_run_tuned_by_lora_leaves_an_ordinary_model(tmp_path: Path):
    pytest.importorskip("peft")
    pytest.importorskip("timm")
    config = Config(
        DataConfig("shades"),
        {"name": "logit_adjust", "head": "cosine"},
        backbone="test_vit",
        tune="lora",
        lora_rank=2,
        views="none",
        epochs=2,
        batch_size=4,
        lr=0.1,
        precision="32-true",
        device="cpu",
    )
    data = dataset(160)
    run = train(config, tmp_path / "run", dataset=data)
    assert not any("lora" in name for name in run.model().state_dict())
    with torch.no_grad():
        logits = run.model()(data.test.images)
    torch.testing.assert_close(logits, run.predictions().logits, rtol=1e-4, atol=1e-4)
    checkpoint = Run(run.folder).checkpoints.load_last()
    assert any("lora" in name for name in checkpoint["method"])
    again = train(config, tmp_path / "run", dataset=data, resume=True)
    assert again.metrics == run.metrics
