"""A Slurm of one node for tests, with its own keys, ports and folders: real daemons, GPUs that are names only."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
CPUS, MEMORY_MB, GPUS = 8, 64_000, 2

_SLURM_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge/sock
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobCompType=jobcomp/none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=1,bf_interval=1
ReturnToService=2
MinJobAge=3600
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} Boards=1 SocketsPerBoard=1 CoresPerSocket={cpus} ThreadsPerCore=1 \
RealMemory={memory} Gres=gpu:{gpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Return why there can be no Slurm here, or nothing."""
    absent = [name for name in DAEMONS if shutil.which(name, path=PATH) is None]
    return f"no {', '.join(absent)} here (Debian: apt-get install slurm-wlm munge)" if absent else ""


class Slurm:
    """Daemons of a cluster of one node, from ``start`` to ``stop``."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._daemons = folder, dict[str, subprocess.Popen[bytes]]()
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_", "SRUN_", "CUDA_"))}
        # the executor's inner srun loses SLURM_CONF on its way; a wrapper that is found first gives it back
        self.environment = inherited | {
            "SLURM_CONF": str(folder / "etc/slurm.conf"), "PATH": os.pathsep.join([str(folder / "bin"), PATH])
        }  # fmt: skip

    def start(self) -> None:
        for name in ("etc", "munge", "state", "spool", "log", "dev", "bin"):
            (self.folder / name).mkdir(parents=True)
        for folder in (self.folder, self.folder / "munge"):
            folder.chmod(0o755)
        key = self.folder / "munge/key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        for gpu in range(GPUS):
            (self.folder / f"dev/gpu{gpu}").symlink_to("/dev/null")  # must be a device
        host, user = socket.gethostname().partition(".")[0], subprocess.check_output(["id", "-un"], text=True).strip()
        settings = {"host": host, "user": user, "folder": self.folder, "ports": _free_ports(2)}
        settings |= {"cpus": CPUS, "memory": MEMORY_MB, "gpus": GPUS}
        (self.folder / "etc/slurm.conf").write_text(_SLURM_CONF.format(**settings))
        # nothing can compute on these GPUs, so jobs are not told of them
        (self.folder / "etc/gres.conf").write_text(
            f"Name=gpu File={self.folder}/dev/gpu[0-{GPUS - 1}] Flags=no_gpu_env\n"
        )
        (self.folder / "etc/cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        wrapper, srun = self.folder / "bin/srun", shutil.which("srun", path=PATH)
        wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={self.folder}/etc/slurm.conf exec {srun} "$@"\n')
        wrapper.chmod(0o755)
        munge = self.folder / "munge"
        self._daemon("munged", "-F", "--force", f"--key-file={key}", f"--socket={munge}/sock",
                     f"--pid-file={munge}/pid", f"--seed-file={munge}/seed", "--num-threads=2")  # fmt: skip
        _until(lambda: self._answers("munge", "-S", f"{munge}/sock", "-n"), "munged", 10)
        self._daemon("slurmctld", "-D", "-c")
        self._daemon("slurmd", "-D", "-c", "-N", host)
        _until(lambda: self.told("sinfo", "-h", "-o", "%T", check=False).strip() == "idle", "slurm", 30)

    def stop(self) -> None:
        """Cancel what runs and end the daemons, each by its own process id."""
        self.told("scancel", "-u", self.told("id", "-un").strip(), check=False)
        for daemon in reversed(self._daemons.values()):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(timeout=15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def told(self, *command: str, check: bool = True) -> str:
        """Return what a command of Slurm's prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=20, check=check)
        return done.stdout

    def jobs(self) -> list[Mapping[str, str]]:
        """Return Slurm's record of every job, by the names that ``scontrol show job`` uses."""
        lines = self.told("scontrol", "-o", "show", "job", "-d").splitlines()
        return [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in lines if "JobId=" in line]

    def _daemon(self, name: str, *arguments: str) -> None:
        with (self.folder / f"log/{name}.out").open("wb") as log:
            self._daemons[name] = subprocess.Popen(
                [shutil.which(name, path=PATH) or name, *arguments], env=self.environment, stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def _answers(self, *command: str) -> bool:
        return subprocess.run(command, env=self.environment, capture_output=True, timeout=20).returncode == 0


def _until(ready: Callable[[], bool], what: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, f"{what} did not start in {seconds} s"
        time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
