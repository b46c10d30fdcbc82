"""A network that is cut between a program and one of its hosts."""

import json
from pathlib import Path

import pytest

from tests.cluster import partition_program
from tests.cluster.hosts import run_apart


@pytest.mark.cluster
@pytest.mark.timeout(400)
def test_a_host_that_is_cut_off_for_a_while_costs_no_result(tmp_path: Path) -> None:
    program = Path(partition_program.__file__)
    done = run_apart(program, str(tmp_path), timeout=380)
    logs = "\n".join(path.read_text()[-2000:] for path in tmp_path.glob("*.log"))
    assert done.returncode == 0, f"{done.stderr}\n{logs}"
    found = json.loads(done.stdout.splitlines()[-1])
    print(found)
    assert found["right"]
    assert found["before"] < partition_program.CALLS, "the cut came too late to matter"
    assert found["seconds_after_heal"] < 60
