//! Drops capabilities: the process keeps only those that sweeps need, and threads that parse requests keep none.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

/// The names of the held capabilities that have a use here.
pub type Held = [Option<&'static str>; 3];

/// The capabilities that sweeps need: for `setns`, for the namespaces of other users' processes, and for their file
/// descriptors, which show the owners of sockets if neither a cgroup nor a namespace does.
const NEEDED: [(CapabilitySet, &str); 3] = [
    (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
    (CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE"),
    (CapabilitySet::DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH"),
];

/// What entering a namespace takes that was found through another user's process.
pub const ENTER: CapabilitySet = CapabilitySet::SYS_ADMIN.union(CapabilitySet::SYS_PTRACE);

/// What reading another user's process takes.
pub const READ_PROCESSES: CapabilitySet = CapabilitySet::SYS_PTRACE;

/// Keeps only the capabilities that sweeps need, for this thread and those that it starts, and prevents it from gaining
/// others by executing a program. Returns the held capabilities.
///
/// Call it before any other thread starts, and after ports below 1024 are bound.
pub fn reduce() -> io::Result<Held> {
    set_no_new_privs(true)?;
    let held = capabilities(None)?;
    let needed = NEEDED.iter().fold(CapabilitySet::empty(), |all, (capability, _)| all | *capability);
    let kept = needed & held.permitted;
    // dropping from the bounding set needs CAP_SETPCAP, which an ordinary user and most containers lack
    for capability in (CapabilitySet::all() - kept).iter() {
        let _ = remove_capability_from_bounding_set(capability);
    }
    let _ = clear_ambient_capability_set();
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() })?;
    Ok(NEEDED.map(|(capability, name)| kept.contains(capability).then_some(name)))
}

/// What to do about a refused permission: run as root if one of these capabilities is missing, else look for what
/// refuses although this process has them.
pub(crate) fn advice(needed: CapabilitySet) -> String {
    advice_to(capabilities(None).map_or(CapabilitySet::empty(), |held| held.effective), needed)
}

fn advice_to(held: CapabilitySet, needed: CapabilitySet) -> String {
    let lacks = |one: CapabilitySet| needed.contains(one) && !held.contains(one);
    let missing: Vec<_> = NEEDED.iter().filter(|(one, _)| lacks(*one)).map(|(_, name)| *name).collect();
    match missing.as_slice() {
        [] => "This process has the capabilities for it, so a security module refuses, or the other side belongs \
               to a user namespace outside its own"
            .to_owned(),
        [one] => format!("{one} is missing; run as root"),
        all => format!("{} are missing; run as root", all.join(" and ")),
    }
}

/// Drops every capability of the calling thread and of those that it starts.
pub fn drop_for_this_thread() -> io::Result<()> {
    let none = CapabilitySet::empty();
    Ok(set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_names_what_is_missing_and_nothing_that_is_held() {
        let (admin, ptrace) = (CapabilitySet::SYS_ADMIN, CapabilitySet::SYS_PTRACE);
        let cases = [
            (CapabilitySet::empty(), admin | ptrace, "CAP_SYS_ADMIN and CAP_SYS_PTRACE are missing; run as root"),
            (admin, admin | ptrace, "CAP_SYS_PTRACE is missing; run as root"),
            (ptrace, admin, "CAP_SYS_ADMIN is missing; run as root"),
        ];
        for (held, needed, advice) in cases {
            assert_eq!(advice_to(held, needed), advice);
        }
        assert!(!advice_to(admin | ptrace, admin | ptrace).contains("root"), "it may be root already");
    }

    /// The lines of this thread's `status` with its capabilities.
    fn status(key: &str) -> u64 {
        let text = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().to_owned();
        u64::from_str_radix(&value, 16).unwrap()
    }

    #[test]
    fn a_thread_keeps_what_sweeps_need_and_then_nothing() {
        // capabilities are a thread's own: the other tests keep theirs
        let thread = std::thread::spawn(|| {
            let before = status("CapPrm:");
            let kept = reduce().unwrap();
            let allowed =
                (CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_PTRACE | CapabilitySet::DAC_READ_SEARCH).bits();
            assert_eq!(status("CapPrm:"), before & allowed);
            assert_eq!(status("CapEff:"), before & allowed);
            assert_eq!((status("CapInh:"), status("NoNewPrivs:")), (0, 1));
            assert_eq!(kept.iter().flatten().count(), (before & allowed).count_ones() as usize);
            drop_for_this_thread().unwrap();
            assert_eq!((status("CapPrm:"), status("CapEff:")), (0, 0));
            assert!(std::thread::spawn(|| status("CapPrm:")).join().unwrap() == 0, "a new thread inherits nothing");
        });
        thread.join().unwrap();
    }
}
