//! Namespaces from trees laid out on disk, and from this machine.

use std::path::Path;

use super::*;
use crate::host::owners::Roots;

fn finder(procfs: &Path, directories: &[&Path], required: bool) -> Finder {
    let roots = Roots { procfs: procfs.to_owned(), ..Roots::default() };
    let netns_dirs = directories.iter().map(|path| path.to_path_buf()).collect();
    Finder::new(&HostPaths { roots, netns_dirs, netns_dirs_required: required, ..HostPaths::default() })
}

fn reasons(search: &Search) -> Vec<(Option<NsId>, LossReason)> {
    search.losses.iter().map(|loss| (loss.namespace, loss.reason)).collect()
}

#[test]
fn our_own_namespace_is_found_through_our_own_process() {
    let search = finder(Path::new("/proc"), &[], false).find();
    let (first, found) = &search.namespaces[0];
    assert_eq!((Some(*first), found.pids.is_empty()), (search.own, false));
}

#[test]
fn what_is_configured_must_exist_and_what_is_not_need_not() {
    let nowhere: &[&Path] = &[Path::new("/nowhere")];
    let proc = Path::new("/proc");
    let permission = |search: &Search| {
        reasons(search).into_iter().filter(|&(_, reason)| reason != LossReason::Permission).collect::<Vec<_>>()
    };
    assert_eq!(permission(&finder(proc, nowhere, false).find()), []);
    assert_eq!(permission(&finder(proc, nowhere, true).find()), [(None, LossReason::Missing)]);
    let search = finder(Path::new("/nowhere"), &[], false).find();
    assert_eq!(reasons(&search), [(None, LossReason::Missing)]);
}

#[test]
fn a_folder_without_processes_is_not_a_procfs_and_one_without_process_1_hides_some() {
    let directory = tempfile::tempdir().unwrap();
    let search = finder(directory.path(), &[], false).find();
    assert_eq!(reasons(&search), [(None, LossReason::Missing)]);
    assert!(search.losses[0].detail.contains("mount a procfs there"), "{:?}", search.losses);
    fs::create_dir(directory.path().join("4711")).unwrap();
    let search = finder(directory.path(), &[], false).find();
    assert_eq!(reasons(&search), [(None, LossReason::Hidden)]);
    fs::create_dir(directory.path().join("1")).unwrap();
    assert_eq!(reasons(&finder(directory.path(), &[], false).find()), []);
}

/// A procfs of two processes in two namespaces; process 1 is in the first.
fn procfs() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (pid, id) in [(1, 11), (2, 12)] {
        let process = directory.path().join(pid.to_string());
        fs::create_dir_all(process.join("ns")).unwrap();
        std::os::unix::fs::symlink(format!("net:[{id}]"), process.join("ns/net")).unwrap();
    }
    directory
}

fn ids(search: &Search, own: Option<NsId>) -> Vec<u64> {
    search.namespaces.iter().map(|(id, _)| *id).filter(|&id| Some(id) != own).map(|id| id.0).collect()
}

#[test]
fn a_namespace_is_gone_when_its_processes_are_and_lost_when_they_cannot_be_read() {
    let directory = procfs();
    let mut finder = finder(directory.path(), &[], false);
    let search = finder.find();
    assert_eq!(ids(&search, finder.own), [11, 12]);

    // process 2 is there, and its namespace cannot be read
    let process = directory.path().join("2");
    fs::remove_dir_all(process.join("ns")).unwrap();
    fs::write(process.join("ns"), "").unwrap();
    for _ in 0..2 {
        let search = finder.find();
        assert_eq!(ids(&search, finder.own), [11]);
        let lost = reasons(&search).into_iter().filter_map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!(lost, [NsId(12)], "in the first sweep and in every later one");
    }

    // the whole listing fails: nothing is known to be gone
    let elsewhere = directory.path().with_extension("away");
    fs::rename(directory.path(), &elsewhere).unwrap();
    let search = finder.find();
    let lost: BTreeSet<_> = search.losses.iter().filter_map(|loss| loss.namespace).collect();
    assert_eq!(lost, [NsId(11), NsId(12)].into());
    fs::rename(&elsewhere, directory.path()).unwrap();

    // another process in a namespace with this number: the number may be used again
    let replaced = |search: &Search| {
        let of = search.namespaces.iter().filter(|(_, found)| found.is_replaced);
        of.map(|(id, _)| id.0).collect::<Vec<_>>()
    };
    fs::remove_file(process.join("ns")).unwrap();
    fs::create_dir(process.join("ns")).unwrap();
    std::os::unix::fs::symlink("net:[12]", process.join("ns/net")).unwrap();
    assert_eq!(replaced(&finder.find()), [] as [u64; 0]);
    fs::rename(&process, directory.path().join("3")).unwrap();
    assert_eq!(replaced(&finder.find()), [12]);
    assert_eq!(replaced(&finder.find()), [] as [u64; 0], "only once");
    fs::rename(directory.path().join("3"), &process).unwrap();

    // and back: process 2 ended
    fs::remove_dir_all(&process).unwrap();
    let search = finder.find();
    assert_eq!((ids(&search, finder.own), reasons(&search)), (vec![11], vec![]));
}
