"""The benchmark scripts at small size: what they compare agrees, and they print their tables."""

import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.__main__ import DOCUMENTS, names_in, replaced

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
        ("training_step", ["--models", "test_resnet:32", "--batch-size", "4", "--steps", "1", "--rounds", "1"],
         ["| `test_resnet`, 32 px | ", "images/s"]),
        ("compiled_step", ["--models", "test_resnet:32", "--batch-size", "4", "--steps", "1", "--rounds", "1"],
         ["| `test_resnet`, 32 px | "]),
        ("meta_training", ["--model", "test_resnet", "--input-px", "32", "--stored-px", "32", "--images", "200",
                           "--val", "40", "--epochs", "1"], ["| `test_resnet`, 32 px | 2 |"]),
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


DOCUMENT = """# Figures

<!-- python -m benchmarks.rmia -->
old
<!-- end -->

between

<!-- python -m benchmarks.fisher -->
<!-- end -->
"""


def test_one_part_of_a_document_is_replaced() -> None:
    found = replaced(DOCUMENT, "rmia", "| a \\1 |\n| new |\n")
    assert found == DOCUMENT.replace("old", "| a \\1 |\n| new |")
    assert replaced(found, "fisher", "x").endswith("<!-- python -m benchmarks.fisher -->\nx\n<!-- end -->\n")


def test_broken_marks_are_refused_before_anything_is_lost() -> None:
    with pytest.raises(ValueError, match="does not end"):
        names_in(DOCUMENT.replace("<!-- end -->", "", 1))
    with pytest.raises(ValueError, match="no part for nowhere"):
        replaced(DOCUMENT, "nowhere", "x")
    with pytest.raises(ValueError, match="holds a mark"):
        replaced(DOCUMENT, "rmia", "a\n<!-- end -->")
    assert names_in(DOCUMENT.replace("rmia -->", "rmia --> ")) == ["fisher"]


def test_every_part_of_ours_is_a_script_with_a_test() -> None:
    names = [name for document in DOCUMENTS for name in names_in(document.read_text())]
    assert len(names) == len(set(names)) >= 9
    tested = {mark.args[1][i][0] for mark in test_script.pytestmark for i in range(len(mark.args[1]))}
    assert set(names) - {"demo"} <= tested  # the demo runs in tests/workflow
    scripts = {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - {"__init__", "__main__", "measuring"}
    # rates fill resources/rates.csv, rmia_calibration a figure of docs/metrics.md, meta_training needs a GPU
    assert scripts - set(names) == {"rates", "rmia_calibration", "meta_training"}


def test_a_script_that_fails_leaves_its_part(tmp_path: Path) -> None:
    document = tmp_path / "figures.md"
    document.write_text(DOCUMENT.replace("rmia", "nowhere"))
    command = [sys.executable, "-m", "benchmarks", "nowhere", "--documents", str(document)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "failed: nowhere" in done.stderr
    assert "old" in document.read_text()
