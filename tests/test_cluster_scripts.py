"""The scripts of docs/cluster.md for training, as far as they can be tried without a cluster."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from shardstream.train.distributed.cluster import find_cluster

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "cluster.md"
TRAINING = DOCUMENT.read_text(encoding="utf-8").split("# Training on several hosts\n", 1)[1]


def block(language: str, containing: str) -> str:
    blocks = re.findall(rf"^```{language}\n(.*?)^```", TRAINING, re.M | re.S)
    return next(text for text in blocks if containing in text)


STAND_INS = {
    "scontrol": '[ "$1 $2 $3" = "show hostnames n[1-3]" ] && printf "n1\\nn2\\nn3\\n"',
    "srun": 'shift; for rank in 0 1 2; do SLURM_PROCID=$rank "$@"; done',
    "shardstream-train": 'for word in "$@"; do printf "%s\\n" "$word"; done >> "$CALLS"; echo end >> "$CALLS"',
}


def test_the_slurm_script_names_all_hosts_to_each_rank(tmp_path):
    for name, content in STAND_INS.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{content}\n")
        program.chmod(0o755)
    script = block("sh", "#SBATCH").replace("/shared/shardstream/.venv/bin", str(tmp_path))
    environment = os.environ | {"SLURM_JOB_NODELIST": "n[1-3]", "CALLS": str(tmp_path / "calls")}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    calls = [call.splitlines() for call in (tmp_path / "calls").read_text().split("end\n")[:-1]]
    for rank, call in enumerate(calls):
        hosts, given = call[call.index("--hosts") + 1], call[call.index("--rank") + 1]
        cluster = find_cluster(hosts, int(given))
        assert (cluster.addresses, cluster.rank) == (("n1:2222", "n2:2222", "n3:2222"), rank)
    assert len(calls) == 3


def test_the_manifest_names_the_pods_that_it_makes():
    service, job, policy = yaml.safe_load_all(block("yaml", "kind: Job"))
    spec = job["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    hosts = re.search(r"--hosts (\S+) --rank \"\$JOB_COMPLETION_INDEX\"", container["args"][0])
    assert hosts
    name, domain = job["metadata"]["name"], service["metadata"]["name"]
    assert spec["completions"] == spec["parallelism"]
    assert hosts[1].split(",") == [f"{name}-{index}.{domain}:2222" for index in range(spec["completions"])]
    assert (spec["completionMode"], pod["subdomain"], service["spec"]["clusterIP"]) == (
        "Indexed",
        domain,
        "None",
    )
    assert service["spec"]["selector"] == {"job-name": name}
    labels = spec["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"] == labels
    assert policy["spec"]["ingress"] == [{"from": [{"podSelector": {"matchLabels": labels}}]}]


@pytest.mark.parametrize("rank", [0, 1])
def test_the_commands_for_plain_hosts_name_two_workers(rank):
    (line,) = (line for line in block("sh", "--rank 1").splitlines() if f"--rank {rank}" in line)
    hosts = re.search(r"--hosts (\S+)", line)
    assert hosts
    assert find_cluster(hosts[1], rank).num_workers == 2
