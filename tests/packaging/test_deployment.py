"""What a team deploys with: the tool that will read each file reads it here, and its promises are checked."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.environment import rows
from tests.nginx import Nginx
from tests.programs import program

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SETTINGS = {row.env for row in rows()}


class _Tags(yaml.SafeLoader):
    """Reads CloudFormation's short tags: `!Ref x` is `{"Ref": "x"}`."""


def _tag(loader: Any, suffix: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        return {suffix: loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {suffix: loader.construct_sequence(node, deep=True)}
    return {suffix: loader.construct_mapping(node, deep=True)}


_Tags.add_multi_constructor("!", _tag)


@pytest.fixture(scope="module")
def stack() -> dict[str, Any]:
    loaded = yaml.load((DEPLOY / "cloudformation" / "tally.yaml").read_text(), Loader=_Tags)  # noqa: S506
    return loaded["Resources"]


def of_type(stack: dict[str, Any], kind: str) -> dict[str, Any]:
    return {name: each["Properties"] for name, each in stack.items() if each["Type"] == kind}


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def tool(name: str) -> str:
    """A command of the environment that the tests run in."""
    return str(Path(sys.executable).with_name(name))


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_cloudformation_passes_its_linter():
    done = run(
        tool("cfn-lint"), "--non-zero-exit-code", "warning", str(DEPLOY / "cloudformation" / "tally.yaml")
    )
    assert done.returncode == 0, done.stdout


def test_roles_may_do_named_things_to_named_resources(stack):
    statements = [
        statement
        for role in of_type(stack, "AWS::IAM::Role").values()
        for policy in role["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
    ]
    assert len(statements) == 5
    for statement in statements:
        assert statement["Effect"] == "Allow"
        actions = as_list(statement["Action"])
        assert not [action for action in actions if "*" in action]
        if as_list(statement["Resource"]) == ["*"]:
            assert actions == ["ecr:GetAuthorizationToken"]
    for role in of_type(stack, "AWS::IAM::Role").values():
        assert "ManagedPolicyArns" not in role
        [trust] = role["AssumeRolePolicyDocument"]["Statement"]
        assert trust["Principal"] == {"Service": "ecs-tasks.amazonaws.com"}
        assert "aws:SourceAccount" in trust["Condition"]["StringEquals"]


def test_only_the_balancer_is_open_to_the_world(stack):
    open_ports = {
        (name, rule["FromPort"])
        for name, group in of_type(stack, "AWS::EC2::SecurityGroup").items()
        for rule in group["SecurityGroupIngress"]
        if "CidrIp" in rule
    }
    assert open_ports == {("BalancerGroup", 443), ("BalancerGroup", 80)}
    databases = of_type(stack, "AWS::RDS::DBInstance")
    assert databases.keys() == {"Database", "Replica"}
    assert [each["PubliclyAccessible"] for each in databases.values()] == [False, False]
    assert databases["Database"]["StorageEncrypted"]
    assert of_type(stack, "AWS::ElastiCache::ReplicationGroup")["StoreCluster"]["TransitEncryptionEnabled"]
    [service] = of_type(stack, "AWS::ECS::Service").values()
    assert service["NetworkConfiguration"]["AwsvpcConfiguration"]["AssignPublicIp"] == "DISABLED"


def test_passwords_are_made_and_passed_as_secrets(stack):
    [task] = of_type(stack, "AWS::ECS::TaskDefinition").values()
    for container in task["ContainerDefinitions"]:
        secret = {each["Name"] for each in container["Secrets"]}
        plain = {each["Name"] for each in container["Environment"]}
        assert secret == {"DATABASE_URL", "READER_DATABASE_URL", "REPLICA_DATABASE_URLS", "REDIS_URL"}
        assert secret | plain <= SETTINGS
        assert container["ReadonlyRootFilesystem"]
    generated = of_type(stack, "AWS::SecretsManager::Secret")
    assert {name for name, each in generated.items() if "GenerateSecretString" in each} == {
        "OwnerSecret",
        "ReaderSecret",
        "StoreSecret",
    }


def test_cognito_has_the_scope_of_the_api(stack):
    [server] = of_type(stack, "AWS::Cognito::UserPoolResourceServer").values()
    assert [f"{server['Identifier']}/{scope['ScopeName']}" for scope in server["Scopes"]] == [
        "api/backend_access"
    ]


@pytest.fixture(scope="module")
def manifests() -> dict[str, dict[str, Any]]:
    found = yaml.safe_load_all((DEPLOY / "kubernetes" / "tally.yaml").read_text())
    return {each["kind"]: each for each in found}


def test_kubernetes_takes_the_manifests():
    done = run(tool("kubernetes-validate"), "--strict", str(DEPLOY / "kubernetes" / "tally.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_pods_are_confined_and_probed(manifests):
    assert manifests.keys() == {
        "ServiceAccount", "ConfigMap", "PersistentVolumeClaim", "Job", "Deployment", "Service",
        "PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy",
    }  # fmt: skip
    for kind in ("Job", "Deployment"):
        pod = manifests[kind]["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert not pod["automountServiceAccountToken"]
        for container in pod["containers"]:
            confined = container["securityContext"]
            assert confined["readOnlyRootFilesystem"]
            assert not confined["allowPrivilegeEscalation"]
            assert confined["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"]
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    paths = {name: container[name]["httpGet"]["path"] for name in ("livenessProbe", "readinessProbe")}
    assert paths == {"livenessProbe": "/health/live", "readinessProbe": "/health/ready"}
    assert pod["terminationGracePeriodSeconds"] > int(manifests["ConfigMap"]["data"]["GRACE_S"])
    assert manifests["ConfigMap"]["data"].keys() <= SETTINGS


def test_the_autoscaler_reads_a_metric_that_the_service_has(manifests):
    named = [
        each["pods"]["metric"]["name"]
        for each in manifests["HorizontalPodAutoscaler"]["spec"]["metrics"]
        if each["type"] == "Pods"
    ]
    assert named == ["tally_pool_waiting"]
    assert named[0] in (ROOT / "service" / "observe" / "families.py").read_text()


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_hash(workflow):
    used = re.findall(r"uses: (\S+)(.*)", workflow.read_text())
    assert used
    for action, note in used:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action), action
        assert re.fullmatch(r" # v[\d.]+", note), action
    jobs = yaml.safe_load(workflow.read_text())["jobs"]
    assert all("timeout-minutes" in job for job in jobs.values())


def test_workflows_have_the_shape_that_github_reads():
    for workflow in WORKFLOWS:
        done = run(tool("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", str(workflow))
        assert done.returncode == 0, done.stdout


def test_systemd_takes_the_unit(tmp_path):
    analyze = program("systemd-analyze")
    unit = (DEPLOY / "systemd" / "tally.service").read_text()
    local = tmp_path / "tally.service"  # `verify` wants programs that exist
    local.write_text(
        unit.replace("/opt/tally/.venv/bin/python", "/bin/true").replace("User=tally\nGroup=tally\n", "")
    )
    verified = run(analyze, "verify", "--man=no", "--recursive-errors=no", str(local))
    assert verified.returncode == 0, verified.stderr
    rated = run(analyze, "security", "--offline=true", "--threshold=20", "--no-pager", str(local))
    assert rated.returncode == 0, rated.stdout


def test_nginx_takes_the_template(tmp_path):
    done = run(*Nginx(tmp_path, [8001, 8002]).command("-t"))
    assert done.returncode == 0, done.stderr
    assert "[warn]" not in done.stderr


def test_secrets_are_made_once_and_closed_to_others(tmp_path):
    folder = tmp_path / "secrets"
    assert run("deploy/secrets.sh", str(folder)).returncode == 0
    first = {path.name: path.read_text() for path in folder.iterdir()}
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    assert first.keys() == compose["secrets"].keys() | {"reader_password"}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert first["owner_password"] in first["database_url"]
    assert first["reader_password"] in first["reader_database_url"]
    assert run("deploy/secrets.sh", str(folder)).returncode == 0
    assert {path.name: path.read_text() for path in folder.iterdir()} == first


def test_the_bill_of_materials_names_what_is_installed():
    done = run(sys.executable, "deploy/sbom.py", "requirements.lock")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["bomFormat"] == "CycloneDX"
    litestar = next(each for each in document["components"] if each["name"] == "litestar")
    assert litestar["purl"] == f"pkg:pypi/litestar@{litestar['version']}"
    assert litestar["hashes"]
