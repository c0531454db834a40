//! A filter of system calls for the agent (seccomp): what it never needs, and what code of somebody else in it would
//! need to write a file, start a program, or change another process.

use std::collections::BTreeMap;

use libc::{O_ACCMODE, O_CREAT, O_RDWR, O_TRUNC, O_WRONLY};
use seccompiler::{
    BackendError, BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// Refused, whatever their arguments are.
const REFUSED: &[libc::c_long] = &[
    // other programs and processes
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // mounts
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fsconfig,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    // files: also those that a filter cannot look into, or that are opened beside the path
    libc::SYS_openat2,
    libc::SYS_open_by_handle_at,
    libc::SYS_io_uring_setup,
    libc::SYS_truncate,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    // the kernel itself
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_clock_settime,
    libc::SYS_settimeofday,
    libc::SYS_unshare,
];

/// The older names of some of them, which newer architectures lack.
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[libc::c_long] = &[
    libc::SYS_creat,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_mknod,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_link,
    libc::SYS_symlink,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_kexec_file_load,
];
/// `kexec_file_load`, whose number libc lacks for musl.
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[libc::c_long] = &[294];

/// Calls that open a file, and the number of the argument with the flags.
#[cfg(target_arch = "x86_64")]
const OPENING: &[(libc::c_long, u8)] = &[(libc::SYS_openat, 2), (libc::SYS_open, 1)];
#[cfg(not(target_arch = "x86_64"))]
const OPENING: &[(libc::c_long, u8)] = &[(libc::SYS_openat, 2)];

/// Refuses these calls to every thread of this process, and to what it starts, with `EPERM`.
pub fn refuse_calls() -> Result<(), Error> {
    seccompiler::apply_filter_all_threads(&program()?)
}

fn program() -> Result<BpfProgram, BackendError> {
    let refused = REFUSED.iter().chain(REFUSED_HERE).map(|&call| (call, Vec::new()));
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = refused.collect();
    for &(call, flags) in OPENING {
        let is = |mask: libc::c_int, value: libc::c_int| {
            let (mask, value) = (u64::from(mask.cast_unsigned()), u64::from(value.cast_unsigned()));
            let length = SeccompCmpArgLen::Dword;
            SeccompRule::new(vec![SeccompCondition::new(flags, length, SeccompCmpOp::MaskedEq(mask), value)?])
        };
        let writes = [is(O_ACCMODE, O_WRONLY)?, is(O_ACCMODE, O_RDWR)?, is(O_CREAT, O_CREAT)?, is(O_TRUNC, O_TRUNC)?];
        rules.insert(call, writes.into());
    }
    let refusal = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    SeccompFilter::new(rules, SeccompAction::Allow, refusal, std::env::consts::ARCH.try_into()?)?.try_into()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::ErrorKind::PermissionDenied;
    use std::process::Command;

    use super::*;

    #[test]
    fn under_the_filter_files_are_only_read_and_no_program_starts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "text").unwrap();
        let refused = std::thread::spawn({
            let (path, folder) = (path.clone(), folder.path().to_owned());
            move || {
                rustix::thread::set_no_new_privs(true).unwrap();
                seccompiler::apply_filter(&program().unwrap()).unwrap();
                assert_eq!(fs::read_to_string(&path).unwrap(), "text");
                assert!(fs::read_dir("/proc/self/fd").unwrap().count() > 0);
                std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                std::thread::spawn(|| {}).join().unwrap();
                [
                    OpenOptions::new().write(true).open(&path).map(drop),
                    OpenOptions::new().read(true).write(true).open(&path).map(drop),
                    OpenOptions::new().append(true).open(&path).map(drop),
                    fs::File::create(folder.join("new")).map(drop),
                    fs::create_dir(folder.join("folder")),
                    fs::rename(&path, folder.join("other")),
                    fs::remove_file(&path),
                    Command::new("/bin/true").status().map(drop),
                ]
                .map(|result| result.map_err(|error| error.kind()))
            }
        });
        assert_eq!(refused.join().unwrap(), [Err(PermissionDenied); 8]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
    }
}
