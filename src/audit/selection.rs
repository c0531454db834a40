//! Finds the network namespaces that the user names on the command line, and checks that the sweep found them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::cli::AuditArgs;
use crate::digest::Digest;
use crate::host::HostPaths;
use crate::host::netns::{self, Found};
use crate::host::privileges;
use crate::judge::report::Report;
use crate::owner::{NsId, Owner};
use crate::small_file;
use crate::words::did_you_mean;

/// The most names that an error lists.
const MAX_NAMES: usize = 5;

/// A network namespace that the user named, with its name for errors.
pub struct Named {
    /// The flag and its value.
    pub flag: String,
    /// The namespace.
    pub id: NsId,
}

/// Checks that the procfs is there: without it a sweep finds nothing, which would look like good news.
pub fn procfs(procfs: &Path) -> Result<()> {
    let path = procfs.to_owned();
    match small_file::aside(move || path.metadata()).and_then(|metadata| metadata) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("--path.procfs {}: no such folder; name the one where procfs is mounted", procfs.display())
        }
        _ => Ok(()),
    }
}

/// The namespaces that `--netns` and `--pid` name, and the paths to enter them.
pub fn namespaces(args: &AuditArgs, paths: &HostPaths) -> Result<(Vec<Named>, BTreeMap<NsId, Found>)> {
    let (mut named, mut found) = (Vec::new(), BTreeMap::new());
    if let Some(pid) = args.pid {
        let flag = format!("--pid {pid}");
        let id = of_process(pid, &paths.roots.procfs).with_context(|| flag.clone())?;
        found.insert(id, Found { pids: vec![pid], ..Found::default() });
        named.push(Named { flag, id });
    }
    if let Some(name) = &args.netns {
        let flag = format!("--netns {name}");
        let (wanted, folders) = (name.clone(), paths.netns_dirs.clone());
        // what is there may hang
        let opened = small_file::aside(move || {
            let path = mount(&wanted, &folders)?;
            let id = netns::id_of(&path).with_context(|| format!("cannot open {}", path.display()))?;
            Ok::<_, anyhow::Error>((path, id))
        });
        let (path, id) = opened.map_err(anyhow::Error::from).flatten().with_context(|| flag.clone())?;
        // `/proc/PID/ns/net` is a path to enter by, but not a name
        let name = path.file_name().filter(|_| !path.parent().is_some_and(|parent| parent.ends_with("ns")));
        let name = name.map(|name| name.to_string_lossy().into_owned());
        found.entry(id).or_insert_with(|| Found { name, mount: Some(path), ..Found::default() });
        named.push(Named { flag, id });
    }
    Ok((named, found))
}

fn of_process(pid: u32, procfs: &Path) -> Result<NsId> {
    let process = procfs.join(pid.to_string());
    let path = process.join("ns/net");
    match netns::id_of(&path) {
        Ok(id) => Ok(id),
        Err(_) if !process.exists() => bail!("there is no process {pid} in {}", procfs.display()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            bail!("cannot read {}. {}", path.display(), privileges::advice(privileges::READ_PROCESSES))
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn mount(name: &str, folders: &[PathBuf]) -> Result<PathBuf> {
    let candidates: Vec<PathBuf> =
        if name.contains('/') { vec![name.into()] } else { folders.iter().map(|folder| folder.join(name)).collect() };
    for path in candidates.iter().filter(|path| path.symlink_metadata().is_ok()) {
        match path.metadata() {
            Ok(_) => return Ok(path.clone()),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                bail!(
                    "cannot read {}: permission denied, because CAP_SYS_PTRACE is missing; run as root",
                    path.display()
                )
            }
            Err(_) => {}
        }
    }
    let looked: Vec<_> = candidates.iter().map(|path| path.display().to_string()).collect();
    let known = folders.iter().filter_map(|folder| folder.read_dir().ok()).flatten().flatten();
    let known: Vec<String> = known.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    bail!(
        "there is no such network namespace (searched {}){}",
        looked.join(", "),
        match did_you_mean(name, known.iter().map(String::as_str)) {
            near if near.is_empty() => "; see `ip netns list`".to_owned(),
            near => near,
        }
    )
}

/// Checks that the sweep found and read the namespaces that the user named.
pub fn check(args: &AuditArgs, named: &[Named], digest: &Digest, report: &Report) -> Result<()> {
    for Named { flag, id } in named {
        if let Some(reason) = digest.why_unread(*id) {
            bail!("{flag}: {reason}");
        }
    }
    let owners: Vec<&Owner> = digest.owners().collect();
    let namespaces = || owners.iter().filter_map(|owner| owner.namespace.as_deref().map(Cow::from));
    let pods = || owners.iter().filter_map(|owner| owner.pod.as_deref().map(Cow::from));
    let all = || owners.iter().flat_map(|owner| owner.names());
    found("--namespace", args.namespace.as_ref(), namespaces, report)?;
    found("--pod", args.pod.as_ref(), pods, report)?;
    found("--owner", args.owner.as_ref(), all, report)
}

/// Checks that one of the names matches the glob of a flag. A name without connections counts too.
fn found<'a, I: Iterator<Item = Cow<'a, str>>>(
    flag: &str,
    value: Option<&String>,
    names: impl Fn() -> I,
    report: &Report,
) -> Result<()> {
    let Some(value) = value else { return Ok(()) };
    let glob = globset::Glob::new(value)?.compile_matcher();
    if names().any(|name| glob.is_match(&*name)) {
        return Ok(());
    }
    let seen = report.connections + report.not_shown + report.ignored;
    let names: BTreeSet<_> = names().collect();
    let known = || names.iter().map(|name| &**name);
    let near = match (did_you_mean(value, known()), names.len()) {
        (near, _) if !near.is_empty() => near,
        (_, 0) => String::new(),
        (_, all) => {
            let some: Vec<_> = known().take(MAX_NAMES).collect();
            let rest = if all > some.len() { format!(" and {} more", all - some.len()) } else { String::new() };
            format!("; names seen are {}{rest}", some.join(", "))
        }
    };
    bail!("no connection matches {flag} {value} ({seen} seen){near}")
}
