"""Kill jobs of every kind at seeded moments, and Snakemake itself, and end where a run ends that nobody disturbs.

    python -m tests.workflow.kill_campaign --kills 60 --seed 0

A moment is a share of the CPU time that a job of that kind took in the undisturbed run. Linux only.
"""

import argparse
import contextlib
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.workflow.conftest import command, jobs, logs_of, toy_config, write_config
from tests.workflow.same_results import differences
from tests.workflow.test_initial_weights import TAG, TINY, write_weights

#: every rule that makes a file; `check_dataset` and `make_plan` make reports that are always made anew
TARGETS = ("all", "report", "results/selection/toy/n3/jit.csv")
_POLL_S = 0.03
_TICKS = os.sysconf("SC_CLK_TCK")


def campaign_config(folder: Path) -> dict[str, Any]:
    """A toy grid with a job of every kind, once or a few times; its initial weights are put into ``folder``."""
    config = toy_config()
    write_weights(folder / "weights" / f"{TAG}.safetensors")
    training = config["training"]["toy"]
    training |= {"model": TAG, "model_options": TINY, "init_weights": "timm"}
    del training["mean"], training["std"]
    faces = {"kind": "hardest_identities", "table": "toy", "blocks": [{"dataset": "toy", "n": 3}], "show_faces": True}
    return {
        **config, "weights_root": str(folder / "weights"), "keep_unlearned": True,  # or they would be made again
        "tables": {"toy": {**config["tables"]["toy"], "methods": ["metaunlearn", "scrub"], "privacy": True}},
        "figures": {"bars": {"kind": "table_bars", "table": "toy"}, "faces": faces},
        "selection": {"requests": 1, "seeds": [0], "grids": {"jit": {"lr": [1e-4, 1e-3]}}},
    }  # fmt: skip


# ---- processes


@dataclass
class Process:
    """A process as the kernel describes it."""

    parent: int
    cpu_s: float


def processes() -> dict[int, Process]:
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        if fields[0] != "Z":
            found[int(name)] = Process(int(fields[1]), (int(fields[11]) + int(fields[12])) / _TICKS)
    return found


def below(root: int, among: dict[int, Process]) -> list[int]:
    """Return the children of ``root``, and theirs."""
    children = defaultdict(list)
    for pid, process in among.items():
        children[process.parent].append(pid)
    found = [root]
    for pid in found:
        found += children[pid]
    return found[1:]


def working_in(folder: Path) -> list[int]:
    """Return the processes whose working folder it is: jobs whose Snakemake has died."""
    found = []
    for pid in processes():
        try:
            if os.readlink(f"/proc/{pid}/cwd") == str(folder):
                found.append(pid)
        except OSError:
            continue
    return found


@dataclass
class JobProcesses:
    """A running job: its rule, its processes, and the CPU time that they and their children have taken so far.

    The process that Snakemake started waits for a fork, and that one for another that is isolated.
    """

    rule: str
    cpu_s: float = 0.0
    pids: list[int] = field(default_factory=list)


class Jobs:
    """The jobs below one Snakemake, by their scripts."""

    def __init__(self, snakemake: int) -> None:
        self._snakemake, self._rules = snakemake, dict[str, str]()

    def running(self) -> dict[str, JobProcesses]:
        among = processes()
        found: dict[str, JobProcesses] = {}
        for pid in below(self._snakemake, among):
            script = self._script(pid)
            if script:
                job = found.setdefault(script, JobProcesses(self._rules[script]))
                job.cpu_s += sum(among[each].cpu_s for each in [pid, *below(pid, among)])
                job.pids.append(pid)
        return found

    def _script(self, pid: int) -> str | None:
        """Return what a process runs. A script of Snakemake's starts with its inputs, outputs and log."""
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes().decode()
            runs = re.match(r"\S+/python[\d.]*[\0 ](\S+/\.snakemake/scripts/[^\0 ]+)", line)
            if runs and runs[1] not in self._rules:
                log = re.search(rb"results/logs/(\w+)/", Path(runs[1]).read_bytes())
                if log:
                    self._rules[runs[1]] = log[1].decode()
        except OSError:
            return None
        return runs[1] if runs and runs[1] in self._rules else None


# ---- runs


@dataclass
class Told:
    """What Snakemake said in one run.

    Attributes:
        text: all of it.
        finished: the output files of each job that ended well, as one text.
    """

    text: str
    finished: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, text: str) -> "Told":
        outputs: dict[str, str] = {}
        told = cls(text)
        for block in re.split(r"\n(?=\[)", text):
            job, output = re.search(r"^    jobid: (\d+)$", block, re.M), re.search(r"^    output: (.+)$", block, re.M)
            if job and output and re.search(r"^(local)?rule \w+:$", block, re.M):
                outputs[job[1]] = output[1]
            for number in re.findall(r"^Finished jobid: (\d+) ", block, re.M):
                if number in outputs:  # targets have none
                    told.finished.append(outputs[number])
        return told


@contextlib.contextmanager
def started(folder: Path, *options: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Start the plain command in a session of its own, which ends with the block at the latest.

    What it says goes to ``said`` in the folder.
    """
    line = command(folder, *options, "--configfile", str(folder / "config.yaml"), "--", *TARGETS)
    with open(folder / "said", "wb") as file:
        # a shell in the background has its children ignore Ctrl-C, and theirs
        workflow = subprocess.Popen(
            line, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
    try:
        yield workflow
    finally:
        if workflow.poll() is None:
            os.killpg(workflow.pid, signal.SIGKILL)
            workflow.wait()


def undisturbed(folder: Path) -> tuple[Told, dict[str, list[float]]]:
    """Run the grid; return what was said, and the CPU seconds of the jobs of each rule."""
    with started(folder) as workflow:
        jobs_of, seen = Jobs(workflow.pid), dict[str, JobProcesses]()
        while workflow.poll() is None:
            seen |= jobs_of.running()
            time.sleep(_POLL_S)
    told = Told.of(logs_of(folder)[-1])
    assert workflow.returncode == 0, told.text[-5000:]
    took = defaultdict(list)
    for job in seen.values():
        took[job.rule].append(job.cpu_s)
    return told, took


@dataclass
class Campaign:
    """Seeded kills in one folder.

    Attributes:
        folder: with the configuration.
        kills: how many jobs are to be killed.
        took: CPU seconds of the jobs of each rule.
        draw: chooses moments and victims.
        say: is told what happens.
        finished: output files of the jobs that ended well, in the order of time.
        killed: rule and moment of each job that was killed.
        stopped: each signal that Snakemake got, and the jobs that ran then.
    """

    folder: Path
    kills: int
    took: dict[str, list[float]]
    draw: random.Random
    say: Callable[[str], None]
    finished: list[str] = field(default_factory=list)
    killed: list[tuple[str, float]] = field(default_factory=list)
    stopped: list[tuple[str, list[str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        # every kind once, early enough that a job that is a little faster is hit, too; the others late as well: while
        # a job writes is a good moment
        self.wanted = {rule: [self.draw.uniform(0.05, 0.5)] for rule in self.took}
        again = [rule for rule, took in self.took.items() if len(took) > 1]
        for rule in self.draw.choices(again, k=max(0, self.kills - len(self.took))):
            self.wanted[rule].append(self.draw.uniform(0.1, 1.0))

    def run(self) -> None:
        """Kill as planned, run to the end, and check nothing."""
        self.round()
        self.round()
        for number, jobs_too in ((signal.SIGINT, False), (signal.SIGKILL, True), (signal.SIGKILL, False)):
            self.round("--retries", "2", stop=number, jobs_too=jobs_too)
            if number == signal.SIGKILL:
                self.unlock()
        for _ in range(20):
            if self.round("--retries", "2") == 0 and self.ended():
                return
        raise AssertionError(f"no end; {self.killed}; {(self.folder / 'said').read_text()[-5000:]}")

    def ended(self) -> bool:
        """Nothing is left to do."""
        line = command(self.folder, "--dry-run", "--configfile", str(self.folder / "config.yaml"), "--", *TARGETS)
        return jobs(subprocess.run(line, capture_output=True, text=True, check=True).stdout) in ({}, {"all": 1})

    def round(self, *options: str, stop: signal.Signals | None = None, jobs_too: bool = False) -> int:
        """Give the command, kill the jobs whose moments have come, and wait for the end.

        Args:
            options: of the command.
            stop: signal that Snakemake gets after a seeded number of kills, while jobs run.
            jobs_too: its jobs get it at the same time.
        """
        before, kills = len(self.killed), self.draw.randint(3, 6)
        # on more cores than the undisturbed run
        with started(self.folder, "--cores", "3", *options) as workflow:
            running = Jobs(workflow.pid)
            moments: dict[str, tuple[str, float | None]] = {}
            while workflow.poll() is None:
                now = running.running()
                for script in moments.keys() - now.keys():
                    rule, moment = moments.pop(script)
                    if moment is not None:  # it ended before: another job of this kind is killed earlier
                        self.wanted[rule].insert(0, moment * 0.8)
                for script, job in now.items():
                    if script not in moments:
                        left = self.wanted.get(job.rule)
                        moments[script] = job.rule, left.pop(0) if left else None
                    rule, moment = moments[script]
                    if moment is not None and job.cpu_s >= moment * min(self.took[rule]):
                        kill(self.draw.choice(job.pids))
                        self.killed.append((rule, moment))
                        moments[script] = rule, None
                if stop and len(self.killed) - before >= kills and any(script in now for script in moments):
                    self.stopped.append((stop.name, sorted(job.rule for job in now.values())))
                    (os.killpg if jobs_too else os.kill)(workflow.pid, stop)
                    assert workflow.wait(timeout=300) != 0
                    break
                time.sleep(_POLL_S)
        for rule, moment in moments.values():
            if moment is not None:  # it ended with Snakemake
                self.wanted[rule].insert(0, moment)
        told = Told.of(logs_of(self.folder)[-1])
        self.finished += told.finished
        ended = f"{self.stopped[-1]}" if stop else f"status {workflow.returncode}"
        killed = ", ".join(rule for rule, _ in self.killed[before:])
        self.say(f"killed: {killed or 'none'}; {len(told.finished)} jobs finished; {ended}")
        return workflow.returncode

    def unlock(self) -> None:
        """Do what the message says: wait for jobs that still run, then give its command."""
        while working_in(self.folder):
            time.sleep(_POLL_S)
        with started(self.folder) as workflow:
            assert workflow.wait(timeout=120) == 1
        said = (self.folder / "said").read_text()
        advice = re.search(
            r"^The Snakemake that worked in .* was killed\. .*; what had finished stays\. (.+)$", said, re.M
        )
        assert advice and "Traceback" not in said, said
        subprocess.run([sys.executable, "-m", *shlex.split(advice[1])], check=True, capture_output=True)


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:  # it ended this very moment
        return


# ---- what they made


def left_over(folder: Path) -> list[Path]:
    """Return temporary files and locks."""
    hidden = [path for path in (folder / "results").rglob(".*")]
    return [*hidden, *(folder / "results").rglob("*.resume"), *(folder / ".snakemake/locks").glob("*")]


def run_campaign(folder: Path, *, kills: int, seed: int, say: Callable[[str], None] = print) -> Campaign:
    """Run both in folders below ``folder`` and check all that is promised."""
    straight, disturbed = folder / "straight", folder / "killed"
    config = campaign_config(folder)
    for each in (straight, disturbed):
        each.mkdir()
        write_config(each, config)
    begun = time.monotonic()
    whole, took = undisturbed(straight)
    say(f"undisturbed: {len(whole.finished)} jobs of {len(took)} kinds in {time.monotonic() - begun:.0f} s")
    campaign = Campaign(disturbed, kills, took, random.Random(seed), say)
    campaign.run()
    say(f"{len(campaign.killed)} jobs killed; {time.monotonic() - begun:.0f} s")
    check(campaign, whole, straight)
    return campaign


def check(campaign: Campaign, whole: Told, straight: Path) -> None:
    folder, took = campaign.folder, campaign.took
    assert [name for name, _ in campaign.stopped] == ["SIGINT", "SIGKILL", "SIGKILL"]
    assert set(dict(campaign.killed)) == set(took), f"never hit: {set(took) - set(dict(campaign.killed))}"
    twice = {outputs: n for outputs, n in Counter(campaign.finished).items() if n > 1}
    assert not twice, f"made again although they were finished: {twice}"
    assert set(campaign.finished) <= set(whole.finished) and len(whole.finished) == len(set(whole.finished))
    assert (found := differences(straight, folder)) == [], found
    assert not left_over(folder)
    assert not working_in(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="a new folder, which stays; default: a temporary one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        run_campaign(folder.resolve(), kills=args.kills, seed=args.seed)


if __name__ == "__main__":
    main()
