//! Gets names from the folders of kubelet's pod and container logs. It lists these folders, and opens no log and
//! follows no link.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::cgroup::is_container_id;
use super::dir::{Entry, entries};
use super::names::{ContainerName, PodName, is_label, is_uid};

/// The content of the two folders when they were last listed.
#[derive(Debug, Default)]
pub(super) struct Logs {
    /// By pod uid. `None` if two folders have the same uid, as after a static pod was renamed.
    pods: HashMap<String, Option<PodName>>,
    /// By container id.
    containers: HashMap<String, ContainerName>,
}

impl Logs {
    /// Lists `pods` and `containers` below `logs`, usually `/var/log`; after an error, as much as could be listed.
    pub fn read(logs: &Path) -> (Self, io::Result<()>) {
        let mut read = Self::default();
        // the administrator chose `logs` itself, so it may be a link; its content may not
        let root = match openat(CWD, logs, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(root) => root,
            Err(errno) => return (read, Err(errno.into())),
        };
        let pods = entries(&root, "pods", |entry| read.pod(entry));
        let containers = entries(&root, "containers", |entry| read.container(entry));
        (read, pods.and(containers))
    }

    /// Adds what another listing found.
    pub fn add(&mut self, other: Self) {
        self.pods.extend(other.pods);
        self.containers.extend(other.containers);
    }

    pub fn pod_by_uid(&self, uid: &str) -> Option<&PodName> {
        self.pods.get(uid)?.as_ref()
    }

    pub fn container_by_id(&self, id: &str) -> Option<&ContainerName> {
        self.containers.get(id)
    }

    /// `pods/NAMESPACE_NAME_UID`
    fn pod(&mut self, entry: &Entry<'_>) {
        let Some((uid, name)) = pod_folder(entry.name) else { return };
        self.pods.entry(uid.to_owned()).and_modify(|known| *known = None).or_insert(Some(name));
    }

    /// `containers/POD_NAMESPACE_CONTAINER-ID.log`
    fn container(&mut self, entry: &Entry<'_>) {
        if let Some((id, name)) = container_link(entry.name) {
            self.containers.insert(id.to_owned(), name);
        }
    }
}

fn pod_folder(folder: &str) -> Option<(&str, PodName)> {
    let mut parts = folder.splitn(3, '_');
    let (namespace, pod, uid) = (parts.next()?, parts.next()?, parts.next()?);
    Some((uid, PodName::new(namespace, pod)?)).filter(|_| is_uid(uid))
}

fn container_link(link: &str) -> Option<(&str, ContainerName)> {
    let (names, id) = link.strip_suffix(".log")?.rsplit_once('-')?;
    let mut parts = names.splitn(3, '_');
    let (pod, namespace, container) = (parts.next()?, parts.next()?, parts.next()?);
    let name = ContainerName { pod: PodName::new(namespace, pod)?, uid: None, container: Some(container.to_owned()) };
    Some((id, name)).filter(|_| is_container_id(id) && is_label(container))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0f99ad5f45163ed14ab8eaf92ed34bb4a631d007f8755a7d79be614bcb0df0ef";

    #[test]
    fn a_pod_folder_is_namespace_name_and_uid() {
        let read = |folder| pod_folder(folder).map(|(uid, name)| (uid, name.namespace, name.pod));
        let some = |uid, namespace: &str, pod: &str| Some((uid, namespace.to_owned(), pod.to_owned()));
        assert_eq!(
            read("shop_web-0_ff49d0be-16b7-4a49-bb9e-8ec1f1f4e27f"),
            some("ff49d0be-16b7-4a49-bb9e-8ec1f1f4e27f", "shop", "web-0")
        );
        assert_eq!(
            read("kube-system_etcd-node.example_36b6d6be73b1065af369b3985edafa09"),
            some("36b6d6be73b1065af369b3985edafa09", "kube-system", "etcd-node.example")
        );
        for foreign in ["", "shop", "shop_web", "shop_web_", "Shop_web_1", "shop_-web_1", "shop_web_1/..", "a_b_c_d"] {
            assert_eq!(read(foreign), None, "{foreign}");
        }
        let long = "n".repeat(64);
        assert_eq!(read(&format!("{long}_web_1")), None);
    }

    #[test]
    fn a_container_link_is_pod_namespace_container_and_id() {
        let link = format!("web-0_shop_istio-proxy-{ID}.log");
        let (id, name) = container_link(&link).expect("a link as kubelet makes it");
        assert_eq!((id, name.pod.namespace.as_str(), name.pod.pod.as_str()), (ID, "shop", "web-0"));
        assert_eq!(name.container.as_deref(), Some("istio-proxy"));
        for foreign in [
            String::new(),
            ".log".into(),
            format!("web-0_shop_app-{ID}"),
            format!("web-0_shop_app{ID}.log"),
            format!("web-0_shop-{ID}.log"),
            format!("web-0_shop_-{ID}.log"),
            format!("web-0_shop_app_x-{ID}.log"),
            format!("web-0_shop_app-{}.log", &ID[1..]),
            format!("web 0_shop_app-{ID}.log"),
        ] {
            assert_eq!(container_link(&foreign), None, "{foreign}");
        }
    }

    #[test]
    fn folders_are_listed_and_links_out_of_the_tree_are_not_followed() {
        let log = tempfile::tempdir().expect("a scratch folder");
        let elsewhere = tempfile::tempdir().expect("a scratch folder");
        std::fs::create_dir_all(log.path().join("pods/shop_web_1")).expect("mkdir");
        std::fs::create_dir_all(log.path().join("pods/shop_old_2")).expect("mkdir");
        std::fs::create_dir_all(log.path().join("pods/shop_new_2")).expect("mkdir");
        std::os::unix::fs::symlink(elsewhere.path(), log.path().join("containers")).expect("symlink");
        let (read, listed) = Logs::read(log.path());
        assert!(listed.is_err(), "a link in place of a folder is refused");
        assert!(read.pod_by_uid("1").is_some(), "and the other folder is listed all the same");

        std::fs::remove_file(log.path().join("containers")).expect("rm");
        std::fs::create_dir(log.path().join("containers")).expect("mkdir");
        let target = "/does/not/exist";
        std::os::unix::fs::symlink(target, log.path().join(format!("containers/web_shop_app-{ID}.log"))).expect("ln");
        let (read, listed) = Logs::read(log.path());
        listed.expect("both folders are there");
        assert_eq!(read.pod_by_uid("1"), PodName::new("shop", "web").as_ref());
        assert_eq!(read.pod_by_uid("2"), None, "two names for one uid are none");
        assert_eq!(read.container_by_id(ID).and_then(|name| name.container.as_deref()), Some("app"));
    }
}
