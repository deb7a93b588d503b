"""Slurm, played by small scripts: `sbatch` starts each job of an array at once, `sacct` tells how it ended."""

import os
import re
import stat
import sys
from pathlib import Path

import pytest

from splitaudit.errors import ConfigError
from splitaudit.experiments.executors import Lost
from tests.experiments.executors.jobs import killed_always, killed_once, negative

pytest.importorskip("submitit")

from submitit.slurm.slurm import SlurmJob

from splitaudit.experiments.executors import slurm
from splitaudit.experiments.executors.slurm import SlurmJobs

TIME = ["time=90"]

SBATCH = """#!{python}
import re, subprocess, sys
from pathlib import Path
spool = Path({spool!r})
script = Path(sys.argv[-1]).read_text()
job = str(len(list(spool.glob("*.script"))) + 1)
(spool / f"{{job}}.script").write_text(script)
array = re.search(r"--array=0-(\\d+)", script)
for task in range(int(array[1]) + 1) if array else [""]:
    subprocess.Popen([sys.executable, spool.parent / "bin" / "play", job, str(task)], start_new_session=True,
                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print("Submitted batch job", job)
"""

PLAY = """#!{python}
import os, subprocess, sys
from pathlib import Path
spool = Path({spool!r})
job, task = sys.argv[1:]
env = dict(os.environ, SLURM_JOB_ID=job, SLURM_NTASKS="1", SLURM_JOB_NUM_NODES="1", SLURM_NODEID="0", SLURM_PROCID="0",
           SLURM_LOCALID="0", SLURM_JOB_NODELIST="here")
if task:
    env |= dict(SLURM_ARRAY_JOB_ID=job, SLURM_ARRAY_TASK_ID=task)
ended = subprocess.run(["bash", spool / f"{{job}}.script"], env=env)
name = f"{{job}}_{{task}}" if task else job
(spool / f"{{name}}.state").write_text("COMPLETED" if ended.returncode == 0 else "FAILED")
"""

SRUN = """#!{python}
import os, sys
command = sys.argv[1:]
while command[0].startswith("-"):
    del command[: 1 if "=" in command[0] or command[0] == "--unbuffered" else 2]
os.execvp(command[0], command)
"""

SACCT = """#!{python}
from pathlib import Path
print("JobID|State|NodeList")
for file in Path({spool!r}).glob("*.state"):
    print(f"{{file.stem}}|{{file.read_text()}}|here")
"""


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cluster of one machine; the scripts of its jobs."""
    folder, commands = tmp_path / "spool", tmp_path / "bin"
    folder.mkdir()
    commands.mkdir()
    for name, source in (("sbatch", SBATCH), ("play", PLAY), ("srun", SRUN), ("sacct", SACCT)):
        (commands / name).write_text(source.format(python=sys.executable, spool=str(folder)))
        (commands / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    # It remembers jobs by their numbers, which begin anew with each cluster.
    SlurmJob.watcher.clear()
    monkeypatch.setattr(slurm, "SECONDS_BETWEEN_LOOKS", 0.2)
    # How long a job's result is waited for once it has ended: here all see the same disk.
    monkeypatch.setattr("submitit.core.core.Job._results_timeout_s", 1)
    return folder


def test_jobs_of_an_array(spool: Path, tmp_path: Path) -> None:
    """One array, with the resources and options asked for, and a lost job submitted again."""
    options = ["partition=gpu", "time=90", "account=0123", "qos=on", "comment=[a", "exclusive=true"]
    jobs = SlurmJobs(tmp_path / "logs", cpus=3, gpus=2, options=options)
    assert jobs.threads == 3
    assert dict(jobs.run(killed_once, [tmp_path / "a", tmp_path / "b"])) == {0: "a", 1: "b"}
    scripts = [file.read_text() for file in sorted(spool.glob("*.script"))]
    assert len(scripts) == 3
    resources = ("--array=0-1", "--cpus-per-task=3", "--gpus-per-node=2", "--partition=gpu", "--time=90", "--exclusive")
    names = ("--account=0123", "--qos=on", "--comment='[a'")
    for line in (*resources, *names):
        assert re.search(rf"^#SBATCH {re.escape(line)}(%2)?$", scripts[0], re.MULTILINE), line


def test_job_that_is_lost_again_is_given_up(spool: Path, tmp_path: Path) -> None:
    values = dict(SlurmJobs(tmp_path / "logs", cpus=1, gpus=0, options=TIME).run(killed_always, [tmp_path / "poison"]))
    assert isinstance(values[0], Lost)
    assert (tmp_path / "poison").read_text() == "xx"


def test_jobs_that_sbatch_refuses(spool: Path, tmp_path: Path) -> None:
    """At the beginning that is said; where a lost job cannot be submitted again, its item is lost."""
    sbatch = spool.parent / "bin" / "sbatch"
    jobs = SlurmJobs(tmp_path / "logs", cpus=1, gpus=0, options=TIME)
    once = sbatch.read_text()
    refusing = "#!/bin/sh\necho 'sbatch: error: invalid partition specified: gpuu' >&2\nexit 1\n"
    sbatch.write_text(once.replace("print(", f"Path({str(sbatch)!r}).write_text({refusing!r})\nprint("))
    values = dict(jobs.run(killed_always, [tmp_path / "poison"]))
    assert isinstance(values[0], Lost)
    assert (tmp_path / "poison").read_text() == "x"
    with pytest.raises(ConfigError, match="invalid partition specified: gpuu"):
        list(jobs.run(negative, [1]))


def test_bad_input(spool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="whole GPUs"):
        SlurmJobs(tmp_path, cpus=1, gpus=0.5, options=TIME)
    with pytest.raises(ConfigError, match="must read option=value"):
        SlurmJobs(tmp_path, cpus=1, gpus=0, options=["gpu"])
    with pytest.raises(ConfigError, match="slurm_partitoin"):
        list(SlurmJobs(tmp_path, cpus=1, gpus=0, options=[*TIME, "partitoin=gpu"]).run(negative, [1]))
    with pytest.raises(ConfigError, match="--slurm-set time=MINUTES"):
        SlurmJobs(tmp_path, cpus=1, gpus=0, options=["partition=gpu"])
    for other in ("1:30:00", "02:00:00", "ninety"):
        with pytest.raises(ConfigError, match=f"--slurm-set time={other}: minutes"):
            SlurmJobs(tmp_path, cpus=1, gpus=0, options=[f"time={other}"])
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="no `sbatch` here"):
        SlurmJobs(tmp_path, cpus=1, gpus=0, options=[])
