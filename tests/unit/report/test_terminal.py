"""A table on a terminal."""

from oneshui.report.terminal import to_text

MARKDOWN = """# Demo

| Model | Retain | Difference to the model | Unlearn |
| --- | ---: | ---: | ---: |
| Original model | 93.0 ± 1.0 | - | - |
| SSD \\| 2 | **92.9 ± 1.1** | <u>+0.3 [-2.9, +3.4]</u> | 0.457 s |

Mean ± standard deviation. Bold and underlined: the best of all. The end.
"""


def test_columns_are_aligned_heads_wrapped_and_marks_gone() -> None:
    assert to_text(MARKDOWN).splitlines() == [
        "Demo",
        "",
        "                            Difference to the",
        "Model               Retain              model  Unlearn",
        "------------------------------------------------------",
        "Original model  93.0 ± 1.0                  -        -",
        "SSD | 2         92.9 ± 1.1  +0.3 [-2.9, +3.4]  0.457 s",
        "",
        "Mean ± standard deviation. The end.",
    ]


def test_columns_that_do_not_fit_are_named() -> None:
    lines = to_text(MARKDOWN, 50).splitlines()
    assert max(map(len, lines)) <= 50
    assert "SSD | 2         92.9 ± 1.1  +0.3 [-2.9, +3.4]" in lines and "(in the file, too: Unlearn)" in lines
