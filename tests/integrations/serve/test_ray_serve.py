"""Two replicas on Ray Serve, one of which is killed under load: nothing is lost or doubled."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers.children import python_path
from helpers.served import noisy

import stablepref

ray = pytest.importorskip("ray")
serve = pytest.importorskip("ray.serve")

from stablepref.integrations.serve.ray_serve import NAME, deployment  # noqa: E402

PORT = 18963


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    # A machine that does other things starts processes slowly.
    for name in ("PROXY_READY_CHECK", "PROXY_HEALTH_CHECK"):
        monkeypatch.setenv(f"RAY_SERVE_{name}_TIMEOUT_S", "120")
    environment = {"env_vars": {"PYTHONPATH": python_path(), "OMP_NUM_THREADS": "1"}}
    ray.init(num_cpus=3, include_dashboard=False, runtime_env=environment)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    yield f"http://127.0.0.1:{PORT}"
    serve.shutdown()
    ray.shutdown()


@pytest.mark.slow
def test_a_replica_that_dies_under_load(cluster: str) -> None:
    serve.run(deployment(["shapes"], replicas=2, dtype="float32"), route_prefix="/")
    far = stablepref.load(f"{cluster}/shapes", device="cpu")
    local = stablepref.load("shapes", device="cpu", dtype="float32")
    images = noisy(200)
    expected = local.score(images, "a red circle").tolist()

    def ask(row: int) -> float:
        return far.score(images[row], "a red circle").item()

    def replicas() -> list[str]:
        found = ray.util.list_named_actors(all_namespaces=True)
        return [one["name"] for one in found if NAME in one["name"] and "REPLICA" in one["name"]]

    assert len(replicas()) == 2
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(ask, row) for row in range(200)]
        answers[40].result(120)
        ray.kill(ray.get_actor(replicas()[0], namespace="serve"))
        found = [answer.result(240) for answer in answers]
    assert found == pytest.approx(expected, abs=1e-4)


def test_options_are_checked_before_anything_runs() -> None:
    with pytest.raises(ValueError, match="replicas must be 1 or more"):
        deployment(["shapes"], replicas=0)
    with pytest.raises(ValueError, match="leave cosmos-rl out"):
        deployment(["shapes"], replicas=2, protocols=("cosmos-rl",))
    with pytest.raises(ValueError, match="two models"):
        deployment(["shapes", "shapes"])
