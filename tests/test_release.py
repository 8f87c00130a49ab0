"""What must agree before a release: version, changelog, citation, supported versions."""

import re
import tomllib
from datetime import date
from pathlib import Path

import yaml

import pyro_dgm
from pyro_dgm.deprecation import MOVED

ROOT = Path(__file__).parents[1]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RELEASE = re.compile(r"^## (\d+\.\d+\.\d+) \((\d{4}-\d{2}-\d{2})\)$", re.MULTILINE)


def page(name: str) -> str:
    return (ROOT / "tutorials/about" / name).read_text()


def test_the_newest_release_of_the_changelog_is_the_version_of_the_package_with_its_date():
    releases = RELEASE.findall(CHANGELOG)
    assert releases[0][0] == pyro_dgm.__version__
    days = [date.fromisoformat(day) for _, day in releases]
    assert days == sorted(days, reverse=True)


def test_every_heading_of_the_changelog_is_a_release_or_what_comes_next():
    headings = re.findall(r"^## (.+)$", CHANGELOG, flags=re.MULTILINE)
    assert [h for h in headings if h != "Unreleased" and not RELEASE.match(f"## {h}")] == []


def test_citation_and_pages_name_the_newest_release():
    citation = yaml.safe_load((ROOT / ".github/CITATION.cff").read_text())
    ((version, day), *_) = RELEASE.findall(CHANGELOG)
    assert citation["version"] == version
    assert str(citation["date-released"]) == day
    assert citation["license"] == PROJECT["license"]
    assert f"version = {{{version}}}" in page("citation.md")
    assert f"**This is {version}, " in page("releases.md")
    assert day in page("releases.md")


def test_supported_versions_are_those_of_the_package():
    classifiers = " ".join(PROJECT["classifiers"])
    for minor in (11, 12, 13):
        assert f"Python :: 3.{minor}" in classifiers
        assert f"3.{minor}" in page("releases.md")
    assert PROJECT["requires-python"] == ">=3.11"
    assert {"torch>=2.6", "pyro-ppl>=1.9.2", "arviz>=0.23"} <= set(PROJECT["dependencies"])
    assert "| torch | 2.6 and later |" in page("releases.md")


def test_the_number_of_names_that_moved_is_the_one_that_the_page_tells():
    moved = [old for old, new in MOVED.items() if new.rpartition(".")[2] == old]
    assert f"and {len(moved) - 1} others" in page("deprecations.md")
