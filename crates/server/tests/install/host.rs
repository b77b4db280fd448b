//! A host for the installer: this machine's programs in a mount namespace, with folders of its own where something
//! is installed. What is in them stays to be looked at.

use crate::plane::SECRET;
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folders that are the host's own.
const OWN: [&str; 4] = ["/opt", "/run", "/var/lib", "/usr/local/sbin"];

pub struct Host {
    dir: tempfile::TempDir,
    /// A program of the host that it does not have.
    pub without: Option<&'static str>,
    /// Done in the namespace first.
    pub prepare: &'static str,
}

/// How a run of the installer ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    /// Both of its outputs.
    pub said: String,
}

/// `None`, after saying so, where the installer cannot be run.
#[expect(clippy::print_stdout, reason = "a test that did not run must be seen")]
pub fn host() -> Option<Host> {
    if !rustix::process::geteuid().is_root() {
        println!("NOT RUN: the installer needs root");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    for own in OWN {
        let path = dir.path().join(&own[1..]);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    Some(Host { dir, without: None, prepare: ":" })
}

pub fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../installer/install.sh").canonicalize().unwrap()
}

impl Host {
    /// A path of the host, seen from outside.
    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path.trim_start_matches('/'))
    }

    /// Runs the installer as a command line of the documentation does: piped into a shell.
    pub fn install(&self, shell: &str, arguments: &[&str], env: &[(&str, &str)]) -> Ended {
        let mounts: String =
            OWN.iter().map(|own| format!("mount -n --bind '{}' {own}\n", self.path(own).display())).collect();
        let hidden = self.without.map_or_else(String::new, |program| {
            format!(
                "for p in /usr/bin/{program} /usr/local/sbin/{program}; do [ ! -e $p ] || mount -n --bind /dev/null $p; done\n"
            )
        });
        let prepare = self.prepare;
        let line = format!("set -e\n{mounts}{hidden}{prepare}\nset +e\ncat | {shell} -s -- \"$@\"");
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-c", &line, "sh"])
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(env.iter().copied())
            .stdin(std::fs::File::open(script()).unwrap())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        Ended { code: output.status.code().unwrap(), said }
    }

    /// Every file, folder and link below a path: owner, mode, content.
    pub fn tree(&self, path: &str) -> BTreeMap<PathBuf, (u32, u32, Vec<u8>)> {
        let mut found = BTreeMap::new();
        let mut walk = vec![self.path(path)];
        while let Some(path) = walk.pop() {
            let Ok(metadata) = path.symlink_metadata() else { continue };
            let content = if metadata.is_dir() {
                walk.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                Vec::new()
            } else if metadata.is_symlink() {
                std::fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else {
                std::fs::read(&path).unwrap()
            };
            let path = path.strip_prefix(self.dir.path()).unwrap().to_path_buf();
            found.insert(path, (metadata.uid(), metadata.mode() & 0o7777, content));
        }
        found
    }

    /// The settings as the agent reads them.
    pub fn settings(&self, folder: &str) -> BTreeMap<String, String> {
        let text = std::fs::read_to_string(self.path(folder).join("sm-agent.conf")).unwrap();
        runtime::env_file::parse(&text)
    }

    /// From now on, each program that is started from the installer writes down its arguments and its environment.
    pub fn watch_programs(&self) {
        std::fs::create_dir_all(self.path("/run/started")).unwrap();
        for program in
            ["base64", "cat", "chmod", "chown", "cmp", "cp", "curl", "cut", "grep", "head", "mkdir", "mktemp"]
                .into_iter()
                .chain(["mv", "openssl", "rm", "sed", "sha256sum", "stat", "tail", "timeout", "tr", "uname"])
        {
            let path = self.path("/usr/local/sbin").join(program);
            let text = format!(
                "#!/bin/sh\n{{ printf '%s ' \"$0\" \"$@\"; /usr/bin/env; }} >/run/started/$$\nexec /usr/bin/{program} \"$@\"\n"
            );
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
    }

    /// What they wrote down.
    pub fn started(&self) -> String {
        self.tree("/run/started").into_values().map(|(_, _, text)| String::from_utf8(text).unwrap()).collect()
    }

    /// Fails where a file that others can read, or what was said, holds the token.
    pub fn keeps_the_secret(&self, ended: &Ended) {
        assert!(!ended.said.contains(SECRET), "{}", ended.said);
        for own in OWN {
            for (path, (_, mode, content)) in self.tree(own) {
                let holds = content.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
                assert!(!holds || mode & 0o077 == 0, "{} has mode {mode:o}", path.display());
            }
        }
    }
}
