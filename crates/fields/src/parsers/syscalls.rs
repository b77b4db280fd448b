//! Names of the system calls that rules ask for, by architecture and number.

/// The name of a call, given the architecture in hexadecimal as audit records have it.
pub(super) fn name(arch: &str, number: &str) -> Option<&'static str> {
    let table = match arch {
        "c000003e" | "x86_64" => X86_64,
        "c00000b7" | "aarch64" => AARCH64,
        "40000003" | "i386" => I386,
        _ => return None,
    };
    let number: u32 = number.parse().ok()?;
    table.iter().find(|(code, _)| *code == number).map(|(_, name)| *name)
}

const X86_64: &[(u32, &str)] = &[
    (59, "execve"),
    (322, "execveat"),
    (2, "open"),
    (257, "openat"),
    (41, "socket"),
    (42, "connect"),
    (43, "accept"),
    (288, "accept4"),
    (49, "bind"),
    (50, "listen"),
    (56, "clone"),
    (57, "fork"),
    (58, "vfork"),
    (62, "kill"),
    (63, "uname"),
    (76, "truncate"),
    (82, "rename"),
    (264, "renameat"),
    (316, "renameat2"),
    (87, "unlink"),
    (263, "unlinkat"),
    (84, "rmdir"),
    (86, "link"),
    (88, "symlink"),
    (90, "chmod"),
    (91, "fchmod"),
    (268, "fchmodat"),
    (92, "chown"),
    (93, "fchown"),
    (94, "lchown"),
    (260, "fchownat"),
    (99, "sysinfo"),
    (101, "ptrace"),
    (105, "setuid"),
    (106, "setgid"),
    (113, "setreuid"),
    (117, "setresuid"),
    (155, "pivot_root"),
    (159, "adjtimex"),
    (161, "chroot"),
    (164, "settimeofday"),
    (165, "mount"),
    (166, "umount2"),
    (169, "reboot"),
    (170, "sethostname"),
    (171, "setdomainname"),
    (175, "init_module"),
    (313, "finit_module"),
    (176, "delete_module"),
    (188, "setxattr"),
    (189, "lsetxattr"),
    (190, "fsetxattr"),
    (197, "removexattr"),
    (227, "clock_settime"),
    (246, "kexec_load"),
    (320, "kexec_file_load"),
    (250, "keyctl"),
    (272, "unshare"),
    (308, "setns"),
    (310, "process_vm_readv"),
    (311, "process_vm_writev"),
    (319, "memfd_create"),
    (321, "bpf"),
    (323, "userfaultfd"),
];

const AARCH64: &[(u32, &str)] = &[
    (221, "execve"),
    (281, "execveat"),
    (56, "openat"),
    (198, "socket"),
    (203, "connect"),
    (202, "accept"),
    (242, "accept4"),
    (200, "bind"),
    (201, "listen"),
    (220, "clone"),
    (129, "kill"),
    (160, "uname"),
    (38, "renameat"),
    (276, "renameat2"),
    (35, "unlinkat"),
    (52, "fchmod"),
    (53, "fchmodat"),
    (54, "fchownat"),
    (55, "fchown"),
    (179, "sysinfo"),
    (117, "ptrace"),
    (146, "setuid"),
    (144, "setgid"),
    (145, "setreuid"),
    (147, "setresuid"),
    (41, "pivot_root"),
    (171, "adjtimex"),
    (51, "chroot"),
    (170, "settimeofday"),
    (40, "mount"),
    (39, "umount2"),
    (142, "reboot"),
    (161, "sethostname"),
    (162, "setdomainname"),
    (105, "init_module"),
    (273, "finit_module"),
    (106, "delete_module"),
    (5, "setxattr"),
    (6, "lsetxattr"),
    (7, "fsetxattr"),
    (14, "removexattr"),
    (112, "clock_settime"),
    (104, "kexec_load"),
    (294, "kexec_file_load"),
    (219, "keyctl"),
    (97, "unshare"),
    (268, "setns"),
    (270, "process_vm_readv"),
    (271, "process_vm_writev"),
    (279, "memfd_create"),
    (280, "bpf"),
    (282, "userfaultfd"),
];

const I386: &[(u32, &str)] = &[
    (11, "execve"),
    (358, "execveat"),
    (5, "open"),
    (295, "openat"),
    (362, "connect"),
    (102, "socketcall"),
    (116, "sysinfo"),
    (122, "uname"),
    (26, "ptrace"),
    (15, "chmod"),
    (10, "unlink"),
    (38, "rename"),
    (88, "reboot"),
    (128, "init_module"),
    (350, "finit_module"),
    (129, "delete_module"),
    (21, "mount"),
    (357, "bpf"),
    (356, "memfd_create"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stands_for_one_call() {
        for table in [X86_64, AARCH64, I386] {
            for (i, (code, name)) in table.iter().enumerate() {
                assert!(table[i + 1..].iter().all(|(other, twin)| other != code && twin != name), "{code} {name}");
            }
        }
        assert_eq!(name("c000003e", "59"), Some("execve"));
        assert_eq!(name("c000003e", "x"), None);
        assert_eq!(name("0", "59"), None);
    }
}
