"""What an administrator would ask of every pod, and whether what it names exists."""

from __future__ import annotations

from typing import Any

from .conftest import Pod, Rendered


def test_no_pod_runs_as_root_or_can_become_it(rendered: Rendered) -> None:
    for pod in rendered.pods:
        security = pod.spec["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert security.get("runAsUser") == rendered.values["podSecurity"].get("runAsUser") != 0
        for container in pod.containers:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False
            assert own["readOnlyRootFilesystem"] is True
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert "privileged" not in own


def test_no_pod_shares_the_host_or_may_ask_the_cluster(rendered: Rendered) -> None:
    for pod in rendered.pods:
        assert pod.spec["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.spec.keys()
        for volume in pod.spec.get("volumes", []):
            assert "hostPath" not in volume
            if "emptyDir" in volume:
                assert volume["emptyDir"]["sizeLimit"], volume["name"]


def test_kubernetes_adds_no_variables_that_look_like_settings(rendered: Rendered) -> None:
    assert all(pod.spec["enableServiceLinks"] is False for pod in rendered.pods)


def test_memory_is_bounded_everywhere(rendered: Rendered) -> None:
    for pod in rendered.pods:
        for container in pod.containers:
            resources = container["resources"]
            assert resources["limits"]["memory"], container["name"]
            assert {"cpu", "memory"} <= resources["requests"].keys(), container["name"]


def test_images_are_pinned(rendered: Rendered) -> None:
    for pod in rendered.pods:
        for container in pod.containers:
            image, registry = container["image"], rendered.values["images"]["registry"]
            assert image.startswith(registry)
            _, colon, tag = image.rpartition(":")
            assert colon, image
            assert tag not in ("", "latest")
            assert "/" not in tag, f"{image} has no tag"


def test_selectors_find_their_own_pods_and_no_others(rendered: Rendered) -> None:
    for owner in rendered.of("Deployment", "StatefulSet"):
        chosen = chosen_by(rendered, owner["spec"]["selector"]["matchLabels"])
        assert [pod.owner["metadata"]["name"] for pod in chosen] == [owner["metadata"]["name"]]
    for service in rendered.of("Service"):
        chosen = chosen_by(rendered, service["spec"]["selector"])
        assert len(chosen) == 1, service["metadata"]["name"]


def test_a_new_version_of_the_chart_alone_restarts_nothing(rendered: Rendered) -> None:
    for pod in rendered.pods:
        assert not {"helm.sh/chart", "app.kubernetes.io/version"} & pod.labels.keys()


def test_services_lead_to_ports_that_are_there(rendered: Rendered) -> None:
    for service in rendered.of("Service"):
        (pod,) = chosen_by(rendered, service["spec"]["selector"])
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in ports(pod), service["metadata"]["name"]


def test_probes_name_ports_that_are_there(rendered: Rendered) -> None:
    for pod in rendered.pods:
        for container in pod.containers:
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                asked = container.get(probe, {}).get("httpGet")
                assert asked is None or asked["port"] in ports(pod)


def test_everything_that_pods_name_exists(rendered: Rendered) -> None:
    values = rendered.values
    promised = {values["secrets"]["name"], *values["images"]["pullSecrets"]}
    promised |= {values["redis"]["external"]["caSecret"]} - {""}
    claims = rendered.names("PersistentVolumeClaim")
    claims |= {values["release"]["volume"]["existingClaim"]} - {""}
    jobs = values["training"]
    claims |= {job.get("claim", jobs["defaults"]["claim"]) for job in jobs["jobs"]}
    for pod in rendered.pods:
        assert secrets(pod) <= promised
        for volume in pod.spec.get("volumes", []):
            if "configMap" in volume:
                assert volume["configMap"]["name"] in rendered.names("ConfigMap")
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims


def test_every_mount_has_its_volume_and_every_volume_its_mount(rendered: Rendered) -> None:
    for pod in rendered.pods:
        volumes = {volume["name"] for volume in pod.spec.get("volumes", [])}
        made = pod.owner["spec"].get("volumeClaimTemplates", [])
        volumes |= {claim["metadata"]["name"] for claim in made}
        mounts = [mount for one in pod.containers for mount in one.get("volumeMounts", [])]
        assert {mount["name"] for mount in mounts} == volumes, pod.component
        for container in pod.containers:
            paths = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
            assert len(paths) == len(set(paths)), container["name"]


def test_keys_come_from_the_secret_alone(rendered: Rendered) -> None:
    """No manifest holds one: what it says is where to look."""
    keys = rendered.values["secrets"]
    known = {keys[name] for name in keys if name != "name"}
    known.add(rendered.values["release"]["download"]["tokenKey"])
    for own in (rendered.values["gateway"]["env"], rendered.values["worker"]["env"]):
        known |= {variable["valueFrom"]["secretKeyRef"]["key"] for variable in own}
    for pod in rendered.pods:
        for container in pod.containers:
            for variable in container.get("env", []):
                name, source = variable["name"], variable.get("valueFrom")
                if name.endswith(("_API_KEY", "PASSWORD", "HF_TOKEN")):
                    assert source["secretKeyRef"]["name"] == keys["name"]
                if source and source["secretKeyRef"]["name"] == keys["name"]:
                    assert source["secretKeyRef"]["key"] in known


def test_a_pod_has_time_to_finish_its_work(rendered: Rendered) -> None:
    for component, setting in (("gateway", "gateway"), ("worker", "worker")):
        for pod in (pod for pod in rendered.pods if pod.component == component):
            before = 5 if component == "gateway" else 0
            drain = rendered.values[setting]["drainSeconds"]
            assert pod.spec["terminationGracePeriodSeconds"] >= before + drain + 15


def chosen_by(rendered: Rendered, wanted: dict[str, str]) -> list[Pod]:
    return [pod for pod in rendered.pods if wanted.items() <= pod.labels.items()]


def ports(pod: Pod) -> set[Any]:
    declared = [port for one in pod.spec["containers"] for port in one.get("ports", [])]
    return {port["name"] for port in declared} | {port["containerPort"] for port in declared}


def secrets(pod: Pod) -> set[str]:
    named = {one["name"] for one in pod.spec.get("imagePullSecrets", [])}
    for volume in pod.spec.get("volumes", []):
        if "secret" in volume:
            named.add(volume["secret"]["secretName"])
    for container in pod.containers:
        for variable in container.get("env", []):
            source = variable.get("valueFrom", {}).get("secretKeyRef")
            if source:
                named.add(source["name"])
    return named
