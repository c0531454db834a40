//! Facts about the node: its name, its kernel, this process.

/// The default name of the node: the environment's `NODE_NAME`, which Kubernetes can set, otherwise the host name.
#[must_use]
pub fn node_name() -> String {
    let named = std::env::var("NODE_NAME").ok().filter(|name| !name.is_empty());
    named.unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned())
}

/// The kernel's release, as `uname -r` prints it.
#[must_use]
pub fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// The number of this process.
#[must_use]
pub fn own_pid() -> u32 {
    std::process::id()
}

/// Whether the kernel is a 32-bit one. Its cgroup ids are not the inode numbers of directories.
pub(super) fn is_32_bit() -> bool {
    let machine = rustix::system::uname().machine().to_string_lossy().into_owned();
    let narrow = ["i386", "i486", "i586", "i686", "mips", "mipsel", "ppc", "riscv32"];
    machine.starts_with("armv") && !machine.starts_with("armv8") || narrow.contains(&machine.as_str())
}
