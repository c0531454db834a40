//! The process that holds a socket, and the name under which people know its program.

use serde::{Deserialize, Serialize};

/// The kernel cuts command names to this length.
const COMM_LEN: usize = 15;

/// The process that holds a socket. What could not be read is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Holder {
    /// Its process id in the host's procfs.
    pub pid: u32,
    /// Its command name (`/proc/PID/comm`).
    #[serde(default)]
    pub comm: String,
    /// The first argument of its command line.
    #[serde(default)]
    pub argv0: String,
    /// The file name of its executable.
    #[serde(default)]
    pub exe: String,
    /// What an interpreter runs: the file name of the script, the module, the jar or the class.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub script: String,
    /// What the executable's ELF headers say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary: Option<Binary>,
    /// The file names of the shared libraries in its memory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub libraries: Vec<String>,
}

/// An executable, by its ELF headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Binary {
    /// How it is linked.
    pub linking: Linking,
    /// The language of its source code, where the compiler has left a mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<Language>,
}

/// How an executable is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Linking {
    /// The dynamic loader starts it, so `LD_PRELOAD` works.
    Dynamic,
    /// It needs no loader.
    Static,
}

/// The language of an executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// It calls the kernel without libc.
    Go,
    /// It calls libc.
    Rust,
}

/// Programs that run other programs: their own name says nothing. A version may follow.
const INTERPRETERS: [&str; 30] = [
    "python",
    "pypy",
    "node",
    "nodejs",
    "deno",
    "bun",
    "ruby",
    "perl",
    "php",
    "java",
    "dotnet",
    "mono",
    "beam.smp",
    "lua",
    "luajit",
    "tclsh",
    "wish",
    "expect",
    "guile",
    "Rscript",
    "sh",
    "bash",
    "dash",
    "ash",
    "zsh",
    "ksh",
    "busybox",
    "toybox",
    "coreutils",
    "qemu",
];

/// Whether a program is known by what it runs: `python3.11`, `java`, `busybox`, `ld-linux-x86-64.so.2`.
#[must_use]
pub fn is_interpreter(exe: &str) -> bool {
    let is_loader = exe.starts_with("ld-") && exe.contains(".so");
    is_loader || INTERPRETERS.contains(&without_version(exe))
}

/// `python` of `python3.11`, `qemu` of `qemu-x86_64-static`.
#[must_use]
pub fn without_version(exe: &str) -> &str {
    if exe.starts_with("qemu-") {
        return "qemu";
    }
    exe.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-'))
}

impl Holder {
    /// The name under which people know the program.
    ///
    /// It is the file name of the executable, with three exceptions. An interpreter is known by its script, or by the
    /// title that the script has given itself. A program with several names in one file is known by the name by which
    /// it was called. Without a script, an interpreter has no version.
    #[must_use]
    pub fn program(&self) -> &str {
        let Self { comm, exe, script, .. } = self;
        if exe.is_empty() {
            return comm;
        }
        let called = self.called();
        if is_interpreter(exe) {
            let title = called.split(':').next().unwrap_or_default();
            if !script.is_empty() {
                return script;
            } else if !title.is_empty() && !is_interpreter(title) {
                return title;
            }
            return if !comm.is_empty() && exe.starts_with(comm.as_str()) { comm } else { exe };
        }
        let is_cut = comm.len() >= COMM_LEN && exe.starts_with(comm.as_str());
        let by_link = comm != exe && !is_cut && !comm.is_empty() && called.get(..COMM_LEN).unwrap_or(called) == comm;
        match exe.starts_with("memfd:") {
            _ if by_link => called,
            true if !comm.is_empty() => comm,
            _ => exe,
        }
    }

    /// Every name of the program: for globs.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let all = [self.program(), &self.exe, &self.comm, &self.script, self.called()];
        all.into_iter().filter(|name| !name.is_empty())
    }

    /// The file name by which it was called: `redis-server` of `/usr/bin/redis-server *:6379`.
    fn called(&self) -> &str {
        let first = self.argv0.split_whitespace().next().unwrap_or_default();
        let file = first.rsplit('/').next().unwrap_or_default();
        // a login shell
        file.strip_prefix('-').unwrap_or(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(exe: &str, comm: &str, argv0: &str, script: &str) -> Holder {
        let [exe, comm, argv0, script] = [exe, comm, argv0, script].map(str::to_owned);
        Holder { pid: 1, comm, argv0, exe, script, ..Holder::default() }
    }

    #[test]
    fn programs_are_named_as_people_know_them() {
        for (exe, comm, argv0, script, name) in [
            ("nginx", "nginx", "nginx: worker process", "", "nginx"),
            ("postgres", "postgres", "postgres: shop shop 10.0.0.1(40000) idle", "", "postgres"),
            // a link to another name
            ("redis-check-rdb", "redis-server", "/usr/bin/redis-server *:6379", "", "redis-server"),
            ("busybox", "nc", "nc", "", "nc"),
            ("busybox", "busybox", "busybox", "nc", "nc"),
            ("busybox", "sh", "sh", "entrypoint.sh", "entrypoint.sh"),
            // interpreters
            ("python3.11", "python3", "python3", "app.py", "app.py"),
            ("python3.11", "gunicorn", "/usr/bin/python3", "gunicorn", "gunicorn"),
            ("python3.11", "gunicorn", "gunicorn: worker [app]", "", "gunicorn"),
            ("python3.11", "python3", "python3", "", "python3"),
            ("ruby3.1", "ruby", "puma 6.4.2 (tcp://0.0.0.0:3000) [shop]", "", "puma"),
            ("node", "MainThread", "node", "server.js", "server.js"),
            ("node", "MainThread", "node", "", "node"),
            ("java", "java", "/usr/bin/java", "cart.jar", "cart.jar"),
            ("beam.smp", "beam.smp", "/usr/lib/erlang/erts-13.1/bin/beam.smp", "rabbit", "rabbit"),
            ("ld-linux-x86-64.so.2", "ld-linux-x86-64", "/lib64/ld-linux-x86-64.so.2", "server", "server"),
            ("bash", "bash", "-bash", "", "bash"),
            // a thread's name and a name that the kernel has cut are not the program's
            ("kube-controller-manager", "kube-controller", "kube-controller-manager", "", "kube-controller-manager"),
            ("vector", "vector-worker", "/usr/bin/vector", "", "vector"),
            ("memfd:payload", "payload", "payload", "", "payload"),
            ("", "kworker", "", "", "kworker"),
        ] {
            assert_eq!(holder(exe, comm, argv0, script).program(), name, "{exe} {comm} {argv0} {script}");
        }
    }

    #[test]
    fn a_recording_without_the_new_facts_is_read() {
        let old: Holder = serde_json::from_str(r#"{"pid":7,"comm":"a","argv0":"/bin/a","exe":"a"}"#).expect("old");
        assert_eq!((old.program(), old.binary, old.libraries.len()), ("a", None, 0));
        let binary = Some(Binary { linking: Linking::Static, language: Some(Language::Go) });
        let new = Holder { binary, libraries: vec!["libpq.so.5".into()], ..old };
        let text = serde_json::to_string(&new).expect("JSON");
        assert_eq!(serde_json::from_str::<Holder>(&text).expect("the same"), new, "{text}");
    }
}
