"""The benchmark scripts at small size: what they compare agrees, and they print their tables."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("script", "arguments", "rows"),
    [
        ("meta_gradient", ["--px", "32", "--support", "4", "--forget", "8", "--micro-batch", "2", "--repeats", "1",
                           "--threads", "1"], ["double backward", "exact jvp", "finite difference"]),
        ("fisher", ["--models", "test_resnet:32", "--images", "4", "--micro-batches", "1", "2", "--rounds", "1"],
         ["| test_resnet:32 | 1 |", "| test_resnet:32 | 2 |"]),
        ("pgu_statistics", ["--model", "vit_tiny_patch16_224", "--px", "32", "--batch-size", "8", "--threads", "1"],
         ["MB beyond the model"]),
        ("rmia", ["--tested", "200", "--population", "300", "--views", "2", "--rounds", "1"],
         ["| one view |", "| mean log ratio |", "| majority |", "equal"]),
        ("input_speed", ["--share", "0.03", "--rounds", "1", "--workers", "1"], ["| 128 px | 64 px |", "| 1024 px |"]),
        ("fixed_costs", ["--rounds", "1", "--large", "0"], ["a job's start: metrics", "dry run of the paper's grid"]),
        ("scaling", ["--identities", "2000"], ["| 2,000 | splits |", "| 2,000 | train_pretrain |", "| 2,000 | all |"]),
    ],
)  # fmt: skip
def test_script(script: str, arguments: list[str], rows: list[str]) -> None:
    command = [sys.executable, "-m", f"benchmarks.{script}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    for row in rows:
        assert row in done.stdout, done.stdout
    assert "nan" not in done.stdout and "DIFFERENT" not in done.stdout
