//! Writes images with one layer and one static binary in the OCI layout, because no image can be pulled here.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::node::{command, output};

/// The image that the test's pods run; its binary is this program.
pub const LOAD: &str = "localhost/load:1";

/// Makes an image whose root holds `binary` as `/NAME`, and imports it into containerd as `image`.
pub fn import(scratch: &Path, image: &str, binary: &Path, name: &str, arguments: &[&str]) -> Result<()> {
    let at = tempfile::tempdir_in(scratch)?;
    let (root, layout) = (at.path().join("root"), at.path().join("layout"));
    fs::create_dir_all(&root)?;
    fs::create_dir_all(layout.join("blobs/sha256"))?;
    fs::copy(binary, root.join(name)).with_context(|| format!("copying {}", binary.display()))?;

    let tar = at.path().join("layer.tar");
    command("tar", &["--owner=0", "--group=0", "-cf", &text(&tar), "-C", &text(&root), name])?;
    let layer = blob(&layout, &tar, "application/vnd.oci.image.layer.v1.tar")?;
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": { "Entrypoint": [format!("/{name}")], "Cmd": arguments },
        "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
    });
    let config = blob_of(&layout, at.path(), &config, "application/vnd.oci.image.config.v1+json")?;
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
    let mut manifest = blob_of(&layout, at.path(), &manifest, "application/vnd.oci.image.manifest.v1+json")?;
    manifest["annotations"] = json!({ "io.containerd.image.name": image });
    fs::write(layout.join("index.json"), json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string())?;
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;

    let archive = text(&at.path().join("image.tar"));
    command("tar", &["-cf", &archive, "-C", &text(&layout), "."])?;
    command("ctr", &["-a", crate::cri::SOCKET, "-n", "k8s.io", "images", "import", &archive])
}

fn blob_of(layout: &Path, scratch: &Path, content: &Value, kind: &str) -> Result<Value> {
    let file = scratch.join("blob");
    fs::write(&file, content.to_string())?;
    blob(layout, &file, kind)
}

/// Moves a file into the layout under its digest.
fn blob(layout: &Path, file: &Path, kind: &str) -> Result<Value> {
    let sum = output("sha256sum", &[&text(file)])?;
    let digest = sum.split(' ').next().context("sha256sum prints a digest")?;
    let size = fs::metadata(file)?.len();
    fs::rename(file, layout.join("blobs/sha256").join(digest))?;
    Ok(json!({ "mediaType": kind, "digest": format!("sha256:{digest}"), "size": size }))
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
