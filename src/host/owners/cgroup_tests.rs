//! Paths from real nodes, with their owners.

use super::*;

const POD: &str = "ff49d0be-16b7-4a49-bb9e-8ec1f1f4e27f";
const POD_: &str = "ff49d0be_16b7_4a49_bb9e_8ec1f1f4e27f";
const DIGEST: &str = "36b6d6be73b1065af369b3985edafa09";
const ID: &str = "0f99ad5f45163ed14ab8eaf92ed34bb4a631d007f8755a7d79be614bcb0df0ef";
const NODE: &str = "fd9d0ea06257a9780827cbc7fd92e3812a54fca26d63e191b73610d5d48b9cbd";

fn fill(path: &str) -> String {
    let words = [("POD_", POD_), ("POD", POD), ("DIGEST", DIGEST), ("NODE", NODE), ("ID", ID)];
    words.iter().fold(path.to_owned(), |path, (word, value)| path.replace(word, value))
}

fn pod(uid: &str, container: Option<&str>) -> CgroupOwner {
    CgroupOwner {
        pods: vec![InPod { uid: uid.to_owned(), container_id: container.map(str::to_owned) }],
        ..CgroupOwner::default()
    }
}

#[test]
fn a_container_of_a_pod() {
    for path in [
        // cgroupfs driver, the three QoS classes: containerd, dockershim and k3s write the bare id
        "/kubepods/podPOD/ID",
        "/kubepods/burstable/podPOD/ID",
        "/kubepods/besteffort/podPOD/ID",
        "/kubepods/besteffort/podPOD/crio-ID",
        "/kubepods/burstable/podPOD/kata_ID",
        // systemd driver
        "/kubepods.slice/kubepods-podPOD_.slice/cri-containerd-ID.scope",
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podPOD_.slice/cri-containerd-ID.scope",
        "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podPOD_.slice/crio-ID.scope",
        "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podPOD_.slice/docker-ID.scope",
        // CRI-O with crun puts the processes one level below
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podPOD_.slice/crio-ID.scope/container",
        // systemd driver of kubelet over a runc that uses cgroupfs
        "/system.slice/containerd.service/kubepods-burstable-podPOD_.slice:cri-containerd:ID",
        "/kubepods-besteffort-podPOD_.slice:cri-containerd:ID",
        // --cgroup-root
        "/node.slice/node-kubepods.slice/node-kubepods-podPOD_.slice/cri-containerd-ID.scope",
        // kind: kubelet's own slice, from inside the node and from the machine that runs the node
        "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/\
         kubelet-kubepods-besteffort-podPOD_.slice/cri-containerd-ID.scope",
        "/kubelet/kubepods/besteffort/podPOD/ID",
        "/docker/NODE/kubelet/kubepods/besteffort/podPOD/ID",
        "/docker/NODE/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podPOD_.slice/cri-containerd-ID.scope",
        "/system.slice/docker-NODE.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/\
         kubelet-kubepods-burstable-podPOD_.slice/cri-containerd-ID.scope",
        "/machine.slice/libpod-NODE.scope/container/kubelet.slice/kubelet-kubepods.slice/\
         kubelet-kubepods-podPOD_.slice/cri-containerd-ID.scope",
        // k3d, k3s in a container, k3s as a unit
        "/docker/NODE/kubepods/burstable/podPOD/ID",
        "/system.slice/docker-NODE.scope/kubepods/besteffort/podPOD/ID",
        "/system.slice/k3s.service/kubepods/podPOD/ID",
        "/system.slice/rke2-server.service/kubepods/burstable/podPOD/ID",
        // a reader in a cgroup namespace: containers start as siblings of its own
        "/../../podPOD/ID",
        "/../../../kubepods-burstable.slice/kubepods-burstable-podPOD_.slice/cri-containerd-ID.scope",
        "/../../kubepods-burstable-podPOD_.slice/cri-containerd-ID.scope",
        // systemd, docker or another runtime running inside the container
        "/kubepods/burstable/podPOD/ID/docker/NODE",
        "/kubepods/burstable/podPOD/ID/system.slice/sshd.service",
        // the cgroup is already removed, a process is still on its way out
        "/kubepods/burstable/podPOD/ID (deleted)",
    ] {
        let mut owner = owner_of_path(&fill(path));
        // the node's own container and the unit that started it are what surrounds the pod
        owner.container_id = None;
        owner.unit = None;
        owner.is_delegated = false;
        assert_eq!(owner, pod(POD, Some(ID)), "{path}");
    }
}

#[test]
fn a_pod_without_a_container() {
    for path in [
        "/kubepods/burstable/podPOD",
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podPOD_.slice",
        // the monitor of a container is not in it
        "/kubepods.slice/kubepods-podPOD_.slice/crio-conmon-ID.scope",
    ] {
        let owner = owner_of_path(&fill(path));
        assert_eq!(owner.pods, pod(POD, None).pods, "{path}");
    }
}

#[test]
fn static_pods_have_digests_for_uids_or_what_their_manifest_says() {
    for (path, uid) in [
        ("/kubepods/burstable/podDIGEST/ID", DIGEST),
        ("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podDIGEST.slice/cri-containerd-ID.scope", DIGEST),
        ("/system.slice/containerd.service/kubepods-burstable-podDIGEST.slice:cri-containerd:ID", DIGEST),
        ("/kubepods/pod1234/ID", "1234"),
        ("/kubepods.slice/kubepods-podmy_uid.slice/cri-containerd-ID.scope", "my-uid"),
    ] {
        let mut owner = owner_of_path(&fill(path));
        owner.unit = None;
        owner.is_delegated = false;
        assert_eq!(owner, pod(uid, Some(ID)), "{path}");
    }
}

#[test]
fn nested_pods_are_all_there() {
    let owner =
        owner_of_path(&fill("/kubepods/burstable/podPOD/NODE/docker/ID/kubelet/kubepods/besteffort/podDIGEST/ID"));
    let found: Vec<_> = owner.pods.iter().map(|pod| (pod.uid.as_str(), pod.container_id.as_deref())).collect();
    assert_eq!(found, [(POD, Some(NODE)), (DIGEST, Some(ID))]);
}

#[test]
fn containers_outside_pods() {
    for path in [
        "/docker/ID",
        "/system.slice/docker-ID.scope",
        "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-ID.scope",
        "/docker/ID/docker/NODE",
        "/machine.slice/libpod-ID.scope",
        "/machine.slice/libpod-ID.scope/container",
        "/machine.slice/machine-libpod_pod_NODE.slice/libpod-ID.scope",
        "/libpod_parent/libpod-ID",
        "/libpod_parent/NODE/libpod-ID",
        "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container",
        "/system.slice/nerdctl-ID.scope",
        "/default/ID",
        "/k8s.io/ID",
        "/ecs/0b2a8ee5/ID",
        "/system.slice/containerd.service/cpuset/ID",
        // systemd inside a container
        "/system.slice/docker-ID.scope/system.slice/nginx.service",
        "/../ID",
    ] {
        assert_eq!(owner_of_path(&fill(path)).container_id.as_deref(), Some(ID), "{path}");
        assert_eq!(owner_of_path(&fill(path)).pods, [], "{path}");
    }
    assert_eq!(owner_of_path("/default/redis").container_id.as_deref(), Some("redis"));
    assert_eq!(owner_of_path("/lxc.payload.web/system.slice/nginx.service").container_id.as_deref(), Some("web"));
}

#[test]
fn systemd_units() {
    for (path, unit) in [
        ("/system.slice/nginx.service", "nginx.service"),
        ("/system.slice/nginx.service/workers", "nginx.service"),
        ("/system.slice/system-postgresql.slice/postgresql@15-main.service", "postgresql@15-main.service"),
        ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/app-code.scope", "app-code.scope"),
        ("/user.slice/user-1000.slice/user@1000.service/init.scope", "user@1000.service"),
        ("/init.scope", "init.scope"),
        ("/system.slice/_cpu.service", "cpu.service"),
        ("/system.slice/dbus-:1.2-org.example@0.service", "dbus-:1.2-org.example@0.service"),
        // watches a container from outside of it
        ("/machine.slice/libpod-conmon-ID.scope", "libpod-conmon-ID.scope"),
        ("/system.slice/podman.service", "podman.service"),
        ("/podruntime.slice/kubelet.service", "kubelet.service"),
    ] {
        let CgroupOwner { pods, container_id, unit: found, is_delegated: _ } = owner_of_path(&fill(path));
        assert_eq!((pods, container_id, found), (vec![], None, Some(fill(unit))), "{path}");
    }
}

/// A user, or a unit that is not a runtime, may own a cgroup and make any name below it.
#[test]
fn a_delegated_cgroup_cannot_pose_as_a_pod() {
    for path in [
        "/user.slice/user-1000.slice/user@1000.service/kubepods-podPOD_.slice/cri-containerd-ID.scope",
        "/user.slice/user-1000.slice/user@1000.service/app.slice/kubepods/besteffort/podPOD/ID",
        "/user.slice/user-1000.slice/user@1000.service/k3s-rootless.service/kubepods/besteffort/podPOD/ID",
        "/user.slice/user-1000.slice/session-3.scope/kubepods.slice/kubepods-podPOD_.slice/crio-ID.scope",
        "/system.slice/evil.service/kubepods/podPOD/ID",
        "/system.slice/run-u7.scope/kubepods.slice/kubepods-podPOD_.slice/crio-ID.scope",
        "/../../user.slice/user-1000.slice/kubepods/podPOD/ID",
    ] {
        let owner = owner_of_path(&fill(path));
        assert_eq!((owner.pods.as_slice(), owner.is_delegated), (&[][..], true), "{path}");
    }
    for path in ["/kubepods/podPOD/ID", "/system.slice/docker-NODE.scope/kubepods/podPOD/ID", "/docker/ID"] {
        assert!(!owner_of_path(&fill(path)).is_delegated, "{path}");
    }
}

#[test]
fn nothing_in_a_name_moves_the_cursor() {
    let owner = owner_of_path("/system.slice/a\nb\x1b[2J.service");
    assert_eq!(owner.unit.as_deref(), Some("a\u{fffd}b\u{fffd}[2J.service"));
    let owner = owner_of_path("/lxc.payload.a\tb");
    assert_eq!(owner.container_id.as_deref(), Some("a\u{fffd}b"));
}

/// Layouts that users of other projects met: path, pod uid, container, unit.
#[test]
fn layouts_from_public_reports() {
    const OLD: &str = "2c48913c-b29f-11e7-9350-020968147796";
    const LONG: &str = "9bca8d63d5fa610783847915bcff0ecac1273e5b4bed3f6fa1b07350e0135961";
    for (path, pod, container, unit) in [
        // a service inside a Proxmox VE container is not the host's unit
        ("/lxc/100/ns/system.slice/nginx.service", "", "100", ""),
        ("/lxc/x1/system.slice/snapd.service", "", "x1", ""),
        ("/lxc/p1", "", "p1", ""),
        ("/machine.slice/systemd-nspawn@box.service/payload/system.slice/nginx.service", "", "box", ""),
        ("/machine.slice/machine-my\\x2dbox.scope/payload/system.slice/nginx.service", "", "my-box", ""),
        ("/machine.slice/machine-qemu\\x2d1\\x2dvm.scope/libvirt/emulator", "", "", "machine-qemu\\x2d1\\x2dvm.scope"),
        ("/lxc.payload.web", "", "web", ""),
        ("/lxc.payload-101", "", "101", ""),
        ("/kubepods/pod2c48913c_b29f_11e7_9350_020968147796/LONG", OLD, LONG, ""),
        ("/kuberuntime/containerd/kubepods-pod2c48913c_b29f_11e7_9350_020968147796:cri-containerd:LONG", OLD, LONG, ""),
        (
            "/ecs/8f03e41243824aea923aca126495f665/34dc0b5e626f2c5c4c5170e34b10e765-1234567890",
            "",
            "34dc0b5e626f2c5c4c5170e34b10e765-1234567890",
            "",
        ),
        ("/garden/6f265890-5165-7fab-6b52-18d1", "", "6f265890-5165-7fab-6b52-18d1", ""),
        ("/system.slice/garden.service/garden/6f265890-5165-7fab-6b52-18d1", "", "6f265890-5165-7fab-6b52-18d1", ""),
        (
            "/kubepods/besteffort/pod2c48913c-b29f-11e7-9350-020968147796/15aa6e53-b09a-40c7-8558-c6c31e36c88a",
            OLD,
            "15aa6e53-b09a-40c7-8558-c6c31e36c88a",
            "",
        ),
        ("/docker/buildkit/t4967jvf8rbufklrhkicskyes", "", "t4967jvf8rbufklrhkicskyes", ""),
        ("/podruntime/kubelet", "", "", "kubelet"),
        ("/kubepods.slice/pod-a", "", "", ""),
    ] {
        let owner = owner_of_path(&path.replace("LONG", LONG));
        let in_pod = owner.pods.first();
        let id = in_pod.map_or(owner.container_id.as_deref(), |pod| pod.container_id.as_deref());
        let found = (in_pod.map_or("", |pod| &pod.uid), id.unwrap_or(""), owner.unit.as_deref().unwrap_or(""));
        // the unit of a container is the runtime's
        let found = if container.is_empty() { found } else { (found.0, found.1, "") };
        assert_eq!(found, (pod, container, unit), "{path}");
    }
}

#[test]
fn nobody_in_particular() {
    for path in [
        "",
        "/",
        "/..",
        "//",
        "/user.slice",
        "/process_api/8bf9b50fe7cf1e4ea27481554499301d",
        "/kubepods",
        "/kubepods.slice/kubepods-burstable.slice",
        "/podman",
        "/pods/podPOD_x",
        "/.service",
        "/default",
        "/kubepods/pod",
        "/kubepods/pod../x",
        "/docker/0f99ad5f",
    ] {
        let owner = CgroupOwner { is_delegated: false, ..owner_of_path(&fill(path)) };
        assert_eq!(owner, CgroupOwner::default(), "{path}");
    }
}

#[test]
fn the_most_specific_line_wins() {
    for (text, expected) in [
        // version 2 only
        ("0::/kubepods/podPOD/ID\n", pod(POD, Some(ID))),
        // version 1, cgroupfs driver: all the same
        (
            "11:devices:/kubepods/besteffort/podPOD/ID\n10:perf_event:/kubepods/besteffort/podPOD/ID\n",
            pod(POD, Some(ID)),
        ),
        // hybrid: the runtime made cgroups in the version 1 hierarchies only
        ("4:memory:/kubepods/podPOD/ID\n1:name=systemd:/kubepods/podPOD/ID\n0::/\n", pod(POD, Some(ID))),
        (
            "1:name=systemd:/system.slice/docker-NODE.scope/kubepods/podPOD/ID\n0::/system.slice/containerd.service\n",
            CgroupOwner { container_id: Some(NODE.to_owned()), ..pod(POD, Some(ID)) },
        ),
        // an unknown controller's own grouping says nothing
        (
            "8:pids:/\n4:memory:/process_api/8bf9b50fe7cf1e4ea27481554499301d\n\
                 1:name=systemd:/system.slice/a.service\n",
            CgroupOwner { unit: Some("a.service".to_owned()), ..CgroupOwner::default() },
        ),
        // where two say equally much, systemd's own hierarchy and version 2 come first
        (
            "5:memory:/system.slice/b.service\n0::/system.slice/a.service\n",
            CgroupOwner { unit: Some("a.service".to_owned()), ..CgroupOwner::default() },
        ),
        ("", CgroupOwner::default()),
        ("garbage\n\n0\n0:\n::\n", CgroupOwner::default()),
    ] {
        let owner = CgroupOwner { is_delegated: false, ..owner_of_process(&fill(text)) };
        assert_eq!(owner, expected, "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_is_a_panic(text in "\\PC*") {
        let _any = owner_of_process(&text);
    }

    #[test]
    fn what_is_found_was_written(
        prefix in "(/[a-z.-]{0,12}){0,3}",
        uid in "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
        id in "[0-9a-f]{64}",
    ) {
        let found = owner_of_path(&format!("{prefix}/kubepods/pod{uid}/{id}"));
        let expected = InPod { uid, container_id: Some(id) };
        proptest::prop_assert_eq!(found.pods.last(), Some(&expected));
    }
}
