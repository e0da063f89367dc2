"""Device choice, and what a block costs."""

import mmap
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from oneshui.devices import Cost, choose_device
from oneshui.errors import ConfigError

CPU = torch.device("cpu")


def test_cost_is_the_blocks_own_time_and_memory() -> None:
    before = np.ones(40 * 2**20, dtype=np.uint8)
    with Cost(CPU) as cost:
        time.sleep(0.05)
        inside = mmap.mmap(-1, 100 * 2**20)  # new pages, whatever memory earlier tests have freed
        for start in range(0, len(inside), mmap.PAGESIZE):
            inside[start] = 1
    assert cost.seconds >= 0.05
    assert len(before) + len(inside) == 140 * 2**20
    if Path("/proc/self/clear_refs").exists():
        assert 95 <= cost.peak_mb <= 130
    with Cost(CPU) as nothing:
        pass
    assert nothing.peak_mb < 5


def test_a_gpu_that_was_given_and_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    threads = torch.get_num_threads()
    with pytest.raises(ConfigError, match=r"given a GPU \(CUDA_VISIBLE_DEVICES is 0\), but torch sees none"):
        choose_device(gpus=1, threads=threads)
    assert choose_device(gpus=0, threads=threads) == CPU


@pytest.mark.parametrize("hidden", ["", "-1", "NoDevFiles", "-1,0"])
def test_a_gpu_that_is_hidden_is_not_missed(monkeypatch: pytest.MonkeyPatch, hidden: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(Path, "exists", lambda self: True)  # the driver is there
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert choose_device(gpus=1, threads=torch.get_num_threads()) == CPU


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells mapped pages apart")
def test_pages_of_mapped_files_are_data(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(bytes(60 * 2**20))
    store = np.memmap(tmp_path / "store", dtype=np.uint8, mode="r")
    with Cost(CPU) as cost:
        assert int(store[:: mmap.PAGESIZE].sum()) == 0
    assert cost.peak_mb < 10
