"""Every file in clusters/ is what its reader (Ray, KubeRay, depo) takes."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml

from depo.config.base import apply_overrides, read_yaml
from depo.config.load import load_config, parse_config
from depo.config.runtime import RuntimeConfig
from depo.config.schema import MethodConfig

ROOT = Path(__file__).parents[2]
CLUSTERS = ROOT / "clusters"
DEMO = ROOT / "experiments" / "configs" / "babyai-tiny.yaml"
OVERLAYS = ("local.yaml", "gpu8.yaml")


@pytest.fixture(scope="module")
def ray_up():
    return read_yaml(CLUSTERS / "ray-gpu8.yaml")


@pytest.fixture(scope="module")
def job():
    return read_yaml(CLUSTERS / "kuberay-rayjob.yaml")


def keys_of(value):
    """All mapping keys in a nested value."""
    if isinstance(value, dict):
        return set(value) | {key for inner in value.values() for key in keys_of(inner)}
    return {key for inner in value for key in keys_of(inner)} if isinstance(value, list) else set()


def test_every_file_is_known_to_a_test_here():
    assert {path.name for path in CLUSTERS.iterdir()} == {
        *OVERLAYS, "Dockerfile", "kuberay-rayjob.yaml", "ray-gpu8.yaml", "runtime_env.yaml"
    }  # fmt: skip


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_is_a_runtime_section_and_goes_over_the_demo_as_its_head_says(name):
    overlay = read_yaml(CLUSTERS / name)
    assert RuntimeConfig.model_validate(overlay).model_dump() != {}
    config = load_config(DEMO, [f"runtime={(CLUSTERS / name).read_text()}"])
    assert config.runtime == RuntimeConfig.model_validate(overlay)


def test_local_settings_fit_two_cores_and_need_no_gpu():
    local = RuntimeConfig.model_validate(read_yaml(CLUSTERS / "local.yaml"))
    assert not local.training.use_gpu
    assert local.generation.num_gpus == 0
    assert local.training.num_workers * local.training.cpus_per_worker <= local.num_cpus == 2
    assert local.generation.actors * local.generation.num_cpus <= local.num_cpus


def test_gpu8_settings_use_eight_gpus_and_fit_a_node_of_the_cluster(ray_up):
    gpu8 = RuntimeConfig.model_validate(read_yaml(CLUSTERS / "gpu8.yaml"))
    node = ray_up["available_node_types"]["gpu8"]["resources"]
    assert gpu8.training.use_gpu
    assert gpu8.training.deepspeed_stage == 3
    assert gpu8.generation.engine == "vllm"
    assert gpu8.training.num_workers == gpu8.generation.actors * gpu8.generation.num_gpus == node["GPU"] == 8
    assert gpu8.training.num_workers * gpu8.training.cpus_per_worker <= node["CPU"]
    assert gpu8.generation.actors * gpu8.generation.num_cpus <= node["CPU"]


def test_no_cluster_file_holds_a_hyper_parameter():
    for path in CLUSTERS.glob("*.yaml"):
        assert not keys_of(read_yaml(path)) & set(MethodConfig.model_fields), path.name


def test_the_ray_up_file_passes_rays_own_validation(ray_up):
    util = pytest.importorskip("ray.autoscaler._private.util")
    prepared = util.prepare_config(ray_up)
    util.validate_config(prepared)
    assert prepared["available_node_types"]["head"]["max_workers"] == 0
    with pytest.raises(Exception, match="headnode"):
        util.validate_config(util.prepare_config({**ray_up, "headnode": "m5.large"}))


def test_the_ray_up_nodes_install_the_wheel_with_the_gpu_extra(ray_up):
    (target,) = ray_up["file_mounts"]
    [install] = ray_up["setup_commands"]
    assert install.startswith("pip install") and f"{target}/depo-*.whl" in install and "[gpu]" in install


def test_images_and_the_job_name_the_ray_version_that_the_package_needs(ray_up, job):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [needed] = [d for d in project["dependencies"] if d.startswith("ray[")]
    low = re.search(r">=([\d.]+)", needed)[1]
    named = [
        ray_up["docker"]["image"].partition(":")[2],
        (CLUSTERS / "Dockerfile").read_text().partition("rayproject/ray:")[2],
        job["spec"]["rayClusterSpec"]["rayVersion"],
    ]
    assert all(version.startswith(f"{low}.") for version in named)
    assert all("-py311-" in image.splitlines()[0] for image in named[:2])


def test_the_rayjob_has_what_the_custom_resource_requires(job):
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,45}[a-z0-9])?", job["metadata"]["name"])
    spec = job["spec"]
    assert set(spec) <= {
        "entrypoint", "submissionMode", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "backoffLimit",
        "runtimeEnvYAML", "rayClusterSpec",
    }  # fmt: skip
    assert spec["submissionMode"] in ("K8sJobMode", "HTTPMode", "SidecarMode")
    assert isinstance(spec["backoffLimit"], int) and isinstance(spec["ttlSecondsAfterFinished"], int)
    assert spec["shutdownAfterJobFinishes"] is True  # else ttlSecondsAfterFinished is refused
    cluster = spec["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        for container in pod["containers"]:
            assert container["name"] and container["image"]
            resources = container["resources"]
            assert resources["requests"] == resources["limits"]
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def test_the_rayjobs_workers_are_pods_of_eight_gpus(job):
    [group] = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert group["groupName"] == "gpu8"
    assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    [container] = group["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "8"


def test_the_rayjob_runs_the_alpha_sweep_with_the_settings_of_gpu8(job):
    command = shlex.split(job["spec"]["entrypoint"])
    assert command[0] == "python"
    script = Path(command[1]).relative_to("/home/ray/depo")
    assert (ROOT / script).is_file()
    assert f"COPY --chown=ray {script.parts[0]} {script.parts[0]}" in (CLUSTERS / "Dockerfile").read_text()
    assert command[2::2] == ["--set"] * (len(command[2:]) // 2)
    overrides = command[3::2]
    config = parse_config(apply_overrides(read_yaml(DEMO), overrides))
    asked = apply_overrides({}, overrides)["runtime"]
    gpu8 = read_yaml(CLUSTERS / "gpu8.yaml")
    for section, values in asked.items():
        expected = gpu8[section]
        assert values == ({k: expected[k] for k in values} if isinstance(values, dict) else expected)
    assert config.runtime.training.num_workers == 8
    mounts = [
        m["mountPath"]
        for m in job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0][
            "volumeMounts"
        ]
    ]
    assert any(config.runtime.runs_dir.startswith(mount) for mount in mounts)


def test_the_runtime_environments_pass_rays_validation_and_bring_depo(job, monkeypatch):
    runtime_env = pytest.importorskip("ray.runtime_env")
    monkeypatch.chdir(ROOT)
    found = runtime_env.RuntimeEnv(**read_yaml(CLUSTERS / "runtime_env.yaml"))
    assert [(ROOT / module / "__init__.py").is_file() for module in found["py_modules"]] == [True]
    assert Path(found["py_modules"][0]).name == "depo"
    inner = runtime_env.RuntimeEnv(**yaml.safe_load(job["spec"]["runtimeEnvYAML"]))
    for environment in (found, inner):
        assert environment["env_vars"]["OMP_NUM_THREADS"] == "1"
        # Without it Ray refuses a job whose driver sets one of these variables again.
        assert environment["env_vars"]["RAY_OVERRIDE_JOB_RUNTIME_ENV"] == "1"
