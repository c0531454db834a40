//! Owners from trees laid out on disk as procfs, cgroupfs and kubelet lay theirs out.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;

use super::tree::Tree;
use super::*;

const UID: &str = "ff49d0be-16b7-4a49-bb9e-8ec1f1f4e27f";
const NEXT_UID: &str = "019c1fe8-0d92-4aa0-b61c-4df58bdde71c";
const APP: &str = "0f99ad5f45163ed14ab8eaf92ed34bb4a631d007f8755a7d79be614bcb0df0ef";
const SIDECAR: &str = "9e073649debeec6d511391c9ec7627ee67ce3a3fb508b0fa0437a97f8e58ba98";
const NS: NsId = NsId(4_026_532_100);

/// A host in a scratch folder.
struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        let host = Self(tempfile::tempdir().expect("a scratch folder"));
        for folder in ["proc", "cgroup", "log/pods", "log/containers"] {
            fs::create_dir_all(host.path(folder)).expect("mkdir");
        }
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn roots(&self) -> Roots {
        Roots {
            procfs: self.path("proc"),
            cgroup: Some(self.path("cgroup")),
            logs: self.path("log"),
            ..Roots::default()
        }
    }

    fn owners(&self) -> Owners {
        let mut owners = Owners::new(&self.roots());
        owners.begin_sweep();
        assert_eq!(owners.issues(), [(OwnerIssue::NoCgroup2, 1)].into(), "no scratch folder is a cgroup file system");
        owners.cgroups.tree = Some(Tree::at(self.path("cgroup")));
        owners
    }

    fn process(&self, pid: u32, ns: NsId, cgroup: &str) {
        let folder = self.path(&format!("proc/{pid}"));
        fs::create_dir_all(folder.join("ns")).expect("mkdir");
        fs::write(folder.join("cgroup"), cgroup).expect("write");
        symlink(format!("net:[{ns}]"), folder.join("ns/net")).expect("ln");
    }

    /// Makes a cgroup; returns its id.
    fn cgroup(&self, path: &str) -> u64 {
        let folder = self.path(&format!("cgroup/{path}"));
        fs::create_dir_all(&folder).expect("mkdir");
        fs::metadata(folder).expect("just made").ino()
    }

    fn pod(&self, folder: &str) {
        fs::create_dir_all(self.path("log/pods").join(folder)).expect("mkdir");
    }

    fn container(&self, pod: &str, namespace: &str, name: &str, id: &str) {
        let link = self.path(&format!("log/containers/{pod}_{namespace}_{name}-{id}.log"));
        symlink("/var/log/pods/somewhere/0.log", link).expect("ln");
    }
}

fn shown(owner: &Owner) -> String {
    format!("{:?} {owner} {}", owner.kind, owner.pod_uid.as_deref().unwrap_or("-"))
}

fn one(owners: &mut Owners, id: u64) -> Option<Owner> {
    owners.of_cgroups(&[id].into()).remove(&id)
}

#[test]
fn a_namespace_belongs_to_the_pod_of_its_processes() {
    let host = Host::new();
    host.pod(&format!("shop_web-0_{UID}"));
    host.process(11, NS, &format!("0::/kubepods/besteffort/pod{UID}/{APP}\n"));
    let owner = host.owners().of_namespace(NS, Some("cni-1"), &[11], false);
    assert_eq!(shown(&owner), format!("Pod shop/web-0 {UID}"));
    assert_eq!(owner.container_id, None, "the namespace is not one container's");
}

#[test]
fn a_process_that_is_gone_or_moved_on_says_nothing() {
    let host = Host::new();
    host.pod(&format!("shop_web-0_{UID}"));
    // the pid was given to a successor in another namespace since it was listed
    host.process(11, NsId(1), &format!("0::/kubepods/besteffort/pod{UID}/{APP}\n"));
    let mut owners = host.owners();
    assert_eq!(shown(&owners.of_namespace(NS, Some("cni-1"), &[10, 11], false)), "Netns cni-1 -");
    assert_eq!(shown(&owners.of_namespace(NS, None, &[10, 11], false)), format!("Netns net:[{NS}] -"));
    host.process(12, NS, &format!("0::/kubepods/besteffort/pod{UID}/{APP}\n"));
    assert_eq!(shown(&owners.of_namespace(NS, None, &[10, 11, 12], false)), format!("Pod shop/web-0 {UID}"));
}

#[test]
fn a_visitor_from_the_host_does_not_take_over_the_namespace_of_a_pod() {
    let host = Host::new();
    host.pod(&format!("shop_web-0_{UID}"));
    host.process(11, NS, "0::/user.slice/user-0.slice/session-3.scope\n");
    host.process(12, NS, &format!("0::/kubepods/besteffort/pod{UID}/{APP}\n"));
    assert_eq!(shown(&host.owners().of_namespace(NS, None, &[11, 12], false)), format!("Pod shop/web-0 {UID}"));
}

#[test]
fn namespaces_outside_pods() {
    let host = Host::new();
    host.process(11, NS, &format!("1:name=systemd:/docker/{APP}\n0::/system.slice/containerd.service\n"));
    host.process(12, NS, "0::/system.slice/nginx.service\n");
    host.process(13, NS, "0::/\n");
    let mut owners = host.owners();
    let container = owners.of_namespace(NS, None, &[11], false);
    assert_eq!(shown(&container), format!("Container {} -", &APP[..12]));
    assert_eq!(container.container_id.as_deref(), Some(APP));
    assert_eq!(shown(&owners.of_namespace(NS, Some("vpn"), &[12], false)), "Unit nginx.service -");
    assert_eq!(shown(&owners.of_namespace(NS, Some("vpn"), &[13], false)), "Netns vpn -");
    assert_eq!(shown(&owners.of_namespace(NS, Some("vpn"), &[11], true)), "Host host -");
}

#[test]
fn application_and_sidecar_of_one_pod_are_two_owners() {
    let host = Host::new();
    let pod = format!("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice", UID.replace('-', "_"));
    host.pod(&format!("shop_web-0_{UID}"));
    host.container("web-0", "shop", "app", APP);
    host.container("web-0", "shop", "istio-proxy", SIDECAR);
    let app = host.cgroup(&format!("{pod}/cri-containerd-{APP}.scope"));
    let sidecar = host.cgroup(&format!("{pod}/cri-containerd-{SIDECAR}.scope"));
    let unit = host.cgroup("system.slice/nginx.service");
    let root = host.cgroup("");

    let found = host.owners().of_cgroups(&[app, sidecar, unit, root, u64::MAX].into());
    let found: Vec<_> = [app, sidecar, unit, root].iter().map(|id| shown(&found[id])).collect();
    assert_eq!(
        found,
        [
            format!("Pod shop/web-0 (app) {UID}"),
            format!("Pod shop/web-0 (istio-proxy) {UID}"),
            "Unit nginx.service -".to_owned(),
            "Host host -".to_owned(),
        ]
    );
}

#[test]
fn the_tree_is_walked_once_a_sweep_and_only_for_new_ids() {
    let host = Host::new();
    let first = host.cgroup("system.slice/a.service");
    let mut owners = host.owners();
    assert!(one(&mut owners, first).is_some());
    let second = host.cgroup("system.slice/b.service");
    assert_eq!(one(&mut owners, second), None, "this sweep has walked");
    owners.begin_sweep();
    assert!(one(&mut owners, second).is_some());

    // an id that was looked for in vain does not cause a walk again: one that walked would find this cgroup
    owners.begin_sweep();
    let absent = u64::MAX;
    assert_eq!(one(&mut owners, absent), None);
    let third = host.cgroup("system.slice/c.service");
    owners.begin_sweep();
    assert_eq!(one(&mut owners, absent), None);
    assert_eq!(owners.cgroups.get(third), None, "nothing was walked");
}

#[test]
fn a_socket_outlives_the_cgroup_that_made_it() {
    let host = Host::new();
    host.pod(&format!("shop_web-0_{UID}"));
    let old = host.cgroup(&format!("kubepods/pod{UID}/{APP}"));
    let mut owners = host.owners();
    assert!(one(&mut owners, old).is_some());
    fs::rename(host.path(&format!("cgroup/kubepods/pod{UID}/{APP}")), host.path("aside")).expect("mv");
    let new = host.cgroup("system.slice/new.service");
    owners.begin_sweep();
    let both = owners.of_cgroups(&[old, new].into());
    assert_eq!(both[&old].pod.as_deref(), Some("web-0"));
    owners.begin_sweep();
    let newest = host.cgroup("system.slice/newest.service");
    owners.of_cgroups(&[new, newest].into());
    assert_eq!(owners.cgroups.get(old), None, "nobody asked, so it is dropped");
}

#[test]
fn a_successor_under_the_same_name_is_another_pod() {
    let host = Host::new();
    host.pod(&format!("shop_web-0_{UID}"));
    host.container("web-0", "shop", "app", APP);
    let old = host.cgroup(&format!("kubepods/pod{UID}/{APP}"));
    host.process(11, NS, &format!("0::/kubepods/pod{UID}/{APP}\n"));
    let mut owners = host.owners();
    assert_eq!(one(&mut owners, old).expect("known").pod_uid.as_deref(), Some(UID));
    assert_eq!(owners.of_namespace(NS, None, &[11], false).pod_uid.as_deref(), Some(UID));

    // the pod is deleted and made again: another uid, the same namespace inode and the same pid
    fs::remove_dir_all(host.path("proc/11")).expect("rm");
    host.process(11, NS, &format!("0::/kubepods/pod{NEXT_UID}/{SIDECAR}\n"));
    let new = host.cgroup(&format!("kubepods/pod{NEXT_UID}/{SIDECAR}"));
    owners.begin_sweep();
    let unnamed = one(&mut owners, new).expect("known");
    assert_eq!(shown(&unnamed), format!("Pod pod {NEXT_UID} {NEXT_UID}"), "kubelet has not made its folder yet");

    host.pod(&format!("shop_web-0_{NEXT_UID}"));
    host.container("web-0", "shop", "app", SIDECAR);
    owners.begin_sweep();
    assert_eq!(shown(&one(&mut owners, new).expect("known")), format!("Pod shop/web-0 (app) {NEXT_UID}"));
    assert_eq!(shown(&owners.of_namespace(NS, None, &[11], false)), format!("Pod shop/web-0 {NEXT_UID}"));
}

#[test]
fn the_container_link_names_a_pod_whose_folder_is_missing() {
    let host = Host::new();
    host.container("web-0", "shop", "app", APP);
    let id = host.cgroup(&format!("kubepods/pod{UID}/{APP}"));
    // kubelet gives the runtime no parent cgroup
    let bare = host.cgroup(&format!("k8s.io/{APP}"));
    let mut owners = host.owners();
    assert_eq!(shown(&one(&mut owners, id).expect("known")), format!("Pod shop/web-0 (app) {UID}"));
    owners.begin_sweep();
    assert_eq!(shown(&one(&mut owners, bare).expect("known")), "Pod shop/web-0 (app) -");
    assert_eq!(owners.issues(), BTreeMap::new());
}

#[test]
fn what_is_missing_or_contradicts_is_counted() {
    let host = Host::new();
    host.pod(&format!("shop_web-0_{UID}"));
    host.container("web-1", "shop", "app", APP);
    let contradicted = host.cgroup(&format!("kubepods/pod{UID}/{APP}"));
    let nameless = host.cgroup(&format!("kubepods/pod{NEXT_UID}/{SIDECAR}"));
    let mut owners = host.owners();
    assert_eq!(shown(&one(&mut owners, contradicted).expect("known")), format!("Pod shop/web-0 (app) {UID}"));
    assert_eq!(owners.issues(), [(OwnerIssue::Disagree, 1)].into());
    owners.begin_sweep();
    one(&mut owners, nameless);
    assert_eq!(owners.issues(), [(OwnerIssue::PodName, 1), (OwnerIssue::ContainerName, 1)].into());
    assert_eq!(owners.issues(), BTreeMap::new(), "each is reported once");

    fs::remove_dir_all(host.path("log")).expect("rm");
    let mut owners = host.owners();
    one(&mut owners, nameless);
    let expected = [(OwnerIssue::PodLogs, 1), (OwnerIssue::PodName, 1), (OwnerIssue::ContainerName, 1)];
    assert_eq!(owners.issues(), expected.into());
}

#[test]
fn of_nested_pods_the_outermost_with_a_name_here_is_meant() {
    let host = Host::new();
    let id = host.cgroup(&format!("kubepods/pod{UID}/{APP}/kubepods/pod{NEXT_UID}/{SIDECAR}"));
    host.pod(&format!("ci_node_{UID}"));
    assert_eq!(one(&mut host.owners(), id).expect("known").to_string(), "ci/node");
    host.pod(&format!("shop_web-0_{NEXT_UID}"));
    let owner = one(&mut host.owners(), id).expect("known").to_string();
    assert_eq!(owner, "ci/node", "a pod that makes cgroups does not pose as another pod of this node");
    fs::remove_dir_all(host.path("log/pods").join(format!("ci_node_{UID}"))).expect("rm");
    assert_eq!(one(&mut host.owners(), id).expect("known").to_string(), "shop/web-0", "a node that is itself a pod");
}

#[test]
fn a_process_that_cannot_be_read_does_not_change_whose_namespace_it_is() {
    let host = Host::new();
    host.pod(&format!("shop_web-0_{UID}"));
    host.process(11, NS, &format!("0::/kubepods/besteffort/pod{UID}/{APP}\n"));
    let mut owners = host.owners();
    let pod = owners.of_namespace(NS, Some("cni-1"), &[11], false);
    // a path through a file: ENOTDIR
    fs::remove_dir_all(host.path("proc/11/ns")).expect("rm");
    fs::write(host.path("proc/11/ns"), "").expect("write");
    for _ in 0..2 {
        owners.begin_sweep();
        assert_eq!(owners.of_namespace(NS, Some("cni-1"), &[11], false), pod);
        assert_eq!(owners.losses().len(), 1);
    }
    fs::remove_dir_all(host.path("proc/11")).expect("rm");
    owners.begin_sweep();
    assert_eq!(shown(&owners.of_namespace(NS, Some("cni-1"), &[11], false)), "Netns cni-1 -", "the process ended");
    assert_eq!(owners.losses(), []);
}

#[test]
fn a_container_id_in_a_delegated_cgroup_names_no_pod() {
    let host = Host::new();
    host.container("web-0", "shop", "app", APP);
    let user = host.cgroup(&format!("user.slice/user-1000.slice/user@1000.service/cri-containerd-{APP}.scope"));
    assert_eq!(shown(&one(&mut host.owners(), user).expect("known")), format!("Container {} -", &APP[..12]));
}

#[test]
fn folders_that_the_user_named_must_exist() {
    let host = Host::new();
    let reasons = |roots: &Roots| {
        let mut owners = Owners::new(roots);
        owners.begin_sweep();
        owners.losses().into_iter().map(|loss| (loss.reason, loss.detail)).collect::<Vec<_>>()
    };
    let nowhere = host.path("nowhere");
    assert_eq!(reasons(&Roots { logs: nowhere.clone(), ..host.roots() }), []);
    let lost = reasons(&Roots { logs: nowhere.clone(), logs_required: true, ..host.roots() });
    assert!(matches!(&lost[..], [(LossReason::Missing, detail)] if detail.contains("--pod-logs")), "{lost:?}");
    let lost = reasons(&Roots { cgroup: Some(nowhere), ..host.roots() });
    assert!(matches!(&lost[..], [(LossReason::Missing, detail)] if detail.contains("--cgroup-root")), "{lost:?}");
}

/// On the machine's own cgroup tree, where it has one of version 2: no privilege is needed for that.
#[test]
fn our_own_cgroup_is_in_the_tree() {
    let roots = Roots { procfs: "/proc".into(), logs: "/nonexistent".into(), ..Roots::default() };
    let mut owners = Owners::new(&roots);
    owners.begin_sweep();
    let path = fs::read_to_string("/proc/self/cgroup").expect("our own");
    let path = path.lines().find_map(|line| line.strip_prefix("0::/"));
    let folder = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .iter()
        .filter_map(|root| path.map(|path| Path::new(root).join(path)))
        .find(|folder| folder.join("cgroup.procs").exists() && owners.cgroups.tree.is_some());
    let Some(folder) = folder else {
        eprintln!("SKIPPED: no cgroup v2 is mounted here, or our own cgroup is out of sight");
        return;
    };
    let id = fs::metadata(folder).expect("our own cgroup").ino();
    owners.begin_sweep();
    let ours = Process::open(Path::new("/proc"), std::process::id()).expect("our own process");
    let cgroup = ours.owner().expect("our own cgroup");
    let owner = one(&mut owners, id).expect("our own cgroup is in the tree");
    if path == Some("") {
        assert_eq!(owner, Owner::default());
    } else {
        assert_eq!(owner, owner_of(&cgroup, &mut owners.sources, &mut owners.issues, &mut owners.losses));
    }
}
