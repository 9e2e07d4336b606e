"""What runs on a code host agrees with what is here: workflows, forms, the container."""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkout import ROOT
from packaging.specifiers import SpecifierSet

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
PYTHON = "Programming Language :: Python :: "


def read(path: Path) -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = read(path)["jobs"]
    return found


def steps(path: Path) -> Iterator[dict[str, Any]]:
    for job in jobs(path).values():
        yield from job["steps"]


def test_there_are_workflows_for_tests_the_site_and_releases() -> None:
    assert [path.stem for path in WORKFLOWS] == ["release", "site", "tests"]


def test_tests_run_on_each_python_that_is_promised_and_on_two_systems() -> None:
    promised = [c.removeprefix(PYTHON) for c in PROJECT["classifiers"] if c.startswith(PYTHON)]
    matrix = jobs(ROOT / ".github/workflows/tests.yml")["tests"]["strategy"]["matrix"]
    assert matrix["python"] == promised
    assert [system.split("-")[0] for system in matrix["system"]] == ["ubuntu", "macos"]
    supported = SpecifierSet(PROJECT["requires-python"])
    assert all(version in supported for version in promised)
    assert "3.10" not in supported
    lock = (ROOT / "requirements.lock").read_text()
    assert f"Python {promised[0]} to {promised[-1]} on Linux and macOS" in lock.replace("\n# ", " ")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_what_is_here_and_no_more(path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for step in steps(path):
        if "run" in step:
            program, argument, *_ = step["run"].split()
            if program == "make":
                assert re.search(rf"^{argument}:.* ## ", makefile, re.MULTILINE), step
            else:
                assert os.access(ROOT / program, os.X_OK), step
        else:
            assert re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|release/v\d+)", step["uses"]), step


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_only_read_but_where_it_publishes_and_knows_no_password(path: Path) -> None:
    assert read(path)["permissions"] == {"contents": "read"}
    assert "secrets." not in path.read_text()
    for name, job in jobs(path).items():
        assert job["timeout-minutes"] <= 60
        if "permissions" in job:
            assert name in ("deploy", "publish")
            assert job["environment"]  # where the code host asks for approval
            assert not any("run" in step for step in job["steps"])


def test_the_site_that_is_published_is_the_one_that_make_book_builds() -> None:
    (upload,) = (
        s for s in steps(ROOT / ".github/workflows/site.yml") if "path" in s.get("with", {})
    )
    assert f" book {upload['with']['path']} " in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_for_issues_asks_for_something(path: Path) -> None:
    if path.stem == "config":
        assert read(path)["blank_issues_enabled"] is True
        return
    form = read(path)
    assert {"name", "description"} <= form.keys()
    assert len({field["id"] for field in form["body"]}) == len(form["body"])
    assert any(field.get("validations", {}).get("required") for field in form["body"])


def test_the_container_installs_what_make_installs() -> None:
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    assert container["postCreateCommand"] == "make install"
    assert container["image"].rpartition(":")[2] in SpecifierSet(PROJECT["requires-python"])


@pytest.mark.parametrize("script", ["run", "try-wheel"])
def test_a_script_for_continuous_integration_can_be_executed_and_parsed(script: str) -> None:
    assert os.access(ROOT / ".ci" / script, os.X_OK)
    subprocess.run(["bash", "-n", str(ROOT / ".ci" / script)], check=True)


@pytest.mark.parametrize(
    ("tag", "heading", "said"),
    [
        ("v1.2.3", "## [1.2.3] - 2026-11-26", ""),
        ("v1.2.4", "## [1.2.3] - 2026-11-26", "expected v1.2.3"),
        ("1.2.3", "## [1.2.3] - 2026-11-26", "expected v1.2.3"),
        ("v1.2.3", "## [Unreleased]", "has no section ## [1.2.3]"),
        ("v1.2.3", "## [1.2.3]", "has no section ## [1.2.3]"),
    ],
)
def test_only_the_version_with_its_section_in_the_changelog_is_published(
    tag: str, heading: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / ".ci").mkdir()
    script = tmp_path / ".ci/check-release"
    script.write_text((ROOT / ".ci/check-release").read_text())
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n## [Unreleased]\n\n{heading}\n")
    done = subprocess.run([sys.executable, str(script), tag], capture_output=True, text=True)
    assert done.returncode == (1 if said else 0)
    assert said in done.stderr
