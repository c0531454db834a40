#!/usr/bin/env python3
"""Installs the plugin of kubectl as krew does, from the archive and by the manifest, and has kubectl run it.

Checks the manifest by the rules of krew's own validator (internal/index/validation), which no package index carries. Needs kubectl and PyYAML.
"""

import fnmatch
import hashlib
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
MANIFEST = ROOT / "deploy/krew/keepalive-auditor.yaml"
API_VERSION = "krew.googlecontainertools.github.com/v1alpha2"
VERSION = r"v\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?"
KNOWN = {
    "": {"apiVersion", "kind", "metadata", "spec"},
    "spec": {"version", "shortDescription", "description", "caveats", "homepage", "platforms"},
    "platform": {"uri", "sha256", "selector", "files", "bin"},
}


def faults(name, plugin):
    """What krew refuses in this manifest; fields that it does not know would be ignored, and are faults here."""
    spec = plugin.get("spec", {})
    rules = [
        (plugin.get("apiVersion") == API_VERSION, "apiVersion"),
        (plugin.get("kind") == "Plugin", "kind"),
        (set(plugin) == KNOWN[""], "a field beside spec"),
        (re.fullmatch(r"[\w-]+", name) is not None, "the file's name"),
        (plugin.get("metadata") == {"name": name}, "metadata"),
        (re.fullmatch(r"[^\r\n]+", spec.get("shortDescription", "")) is not None, "shortDescription"),
        (re.fullmatch(VERSION, spec.get("version", "")) is not None, "version"),
        (bool(spec.get("platforms")), "platforms"),
        (set(spec) <= KNOWN["spec"], "a field of spec"),
    ]
    for platform in spec.get("platforms") or []:
        selector = platform.get("selector") or {}
        keys = [*selector.get("matchLabels", {}), *(entry["key"] for entry in selector.get("matchExpressions", []))]
        rules += [
            (set(platform) <= KNOWN["platform"], "a field of a platform"),
            (platform.get("uri", "").startswith("https://"), "uri"),
            (re.fullmatch("[a-f0-9]{64}", platform.get("sha256", "")) is not None, "sha256"),
            (bool(platform.get("bin")), "bin"),
            (platform.get("files") != [] and all(op.get("from") and op.get("to") for op in platform.get("files", [])), "files"),
            (bool(keys) and set(keys) <= {"os", "arch"}, "selector"),
        ]
    return [what for holds, what in rules if not holds]


def install(platform, archive, home):
    """Unpacks, applies the file operations, links the executable; returns the link's folder."""
    unpacked, store, links = home / "unpacked", home / "store", home / "bin"
    with zipfile.ZipFile(archive) as packed:
        for member in packed.infolist():
            path = pathlib.Path(packed.extract(member, unpacked))
            path.chmod(member.external_attr >> 16 & 0o777)
    for operation in platform["files"]:
        moved = [path for path in unpacked.iterdir() if fnmatch.fnmatch(path.name, operation["from"])]
        assert moved, f"the archive has no {operation['from']}"
        for path in moved:
            (store / operation["to"]).mkdir(parents=True, exist_ok=True)
            path.rename(store / operation["to"] / path.name)
    links.mkdir()
    (links / ("kubectl-" + MANIFEST.stem.replace("-", "_"))).symlink_to(store / platform["bin"])
    return links


def main():
    plugin = yaml.safe_load(MANIFEST.read_text())
    found = faults(MANIFEST.stem, plugin)
    for wrong in ({"kind": "Plugins"}, {"spec": plugin["spec"] | {"version": "0.1.0"}}, {"spec": plugin["spec"] | {"platforms": []}}):
        if not faults(MANIFEST.stem, plugin | wrong):
            found.append(f"the check accepts {wrong}")
    if found:
        sys.exit(f"{MANIFEST.relative_to(ROOT)}: {', '.join(found)}")
    with tempfile.TemporaryDirectory() as scratch:
        archive = pathlib.Path(scratch) / "plugin.zip"
        subprocess.run([ROOT / "deploy/generate.py", "--krew-archive", archive], check=True)
        checksum = hashlib.sha256(archive.read_bytes()).hexdigest()
        for number, platform in enumerate(plugin["spec"]["platforms"]):
            if platform["sha256"] != checksum:
                sys.exit(f"the manifest's checksum is not the archive's, which is {checksum}: run deploy/generate.py")
            home = pathlib.Path(scratch) / str(number)
            home.mkdir()
            path = f"{install(platform, archive, home)}:{os.environ['PATH']}"
            said = subprocess.run(["kubectl", "keepalive-auditor", "--help"], env=os.environ | {"PATH": path}, check=True, capture_output=True, text=True)
            if "kubectl keepalive-auditor audit --all-nodes" not in said.stdout:
                sys.exit(f"the installed plugin says: {said.stdout}{said.stderr}")
    print("krew: the manifest is valid, and the installed plugin runs")


if __name__ == "__main__":
    main()
