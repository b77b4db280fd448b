//! What the installer is told, and what comes of it.

use crate::host::host;
use crate::plane::{Plane, SECRET, agent};

const FOLDER: &str = "/opt/security-manager";

#[test]
fn every_form_of_arguments_comes_to_the_same_settings() {
    let Some(_) = host() else { return };
    let plane = Plane::new();
    plane.put_agent(&agent("1.0.0"));
    let (token, address) = (plane.token("acme"), plane.address());
    let (token, address) = (token.as_str(), address.as_str());
    let with = |name: &str, value: &str| format!("{name}={value}");
    /// Shell, arguments, environment.
    type Form<'a> = (&'a str, Vec<String>, Vec<(&'a str, &'a str)>);
    let forms: [Form<'_>; 6] = [
        // The manual's.
        ("bash", ["--token", token, "--org", "acme", "--ingest", address].map(String::from).to_vec(), vec![]),
        ("sh", ["--token", token, "--ingest", address, "--install-dir", FOLDER].map(String::from).to_vec(), vec![]),
        // The portal's.
        (
            "bash",
            vec![with("--token", token), "--org=acme".into(), "--host=".into(), with("--ingest", address)],
            vec![],
        ),
        // The one-liner's.
        ("sh", vec![with("SM_TOKEN", token), with("SM_INGEST_URL", address)], vec![]),
        ("bash", vec![with("SM_TOKEN", token)], vec![("SM_INGEST_URL", address)]),
        ("sh", vec![], vec![("SM_TOKEN", token), ("SM_INGEST_URL", address), ("SM_ORG_ID", "acme")]),
    ];
    for (shell, arguments, env) in forms {
        let host = host().unwrap();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let ended = host.install(shell, &arguments, &env);
        assert_eq!(ended.code, 0, "{arguments:?}: {}", ended.said);
        let expected = [
            ("SM_INGEST_URL", address),
            ("SM_LOG_LEVEL", "info"),
            ("SM_ORG_ID", "acme"),
            ("SM_TOKEN", token),
            ("SM_USE_TLS", "true"),
        ];
        let expected = expected.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        assert_eq!(host.settings(FOLDER), expected, "{arguments:?}");
        host.keeps_the_secret(&ended);
        let modes: Vec<(String, u32, u32)> = host
            .tree(FOLDER)
            .into_iter()
            .map(|(path, (owner, mode, _))| (path.display().to_string(), owner, mode))
            .collect();
        let folder = &FOLDER[1..];
        let expected = [(folder.to_owned(), 0, 0o755), (format!("{folder}/sm-agent"), 0, 0o755)];
        let conf = (format!("{folder}/sm-agent.conf"), 0, 0o600);
        assert_eq!(modes, expected.into_iter().chain([conf]).collect::<Vec<_>>());
        assert!(ended.said.contains("there is no systemd here"), "{}", ended.said);
    }
}

#[test]
fn a_value_of_any_characters_is_what_the_agent_reads() {
    let Some(_) = host() else { return };
    let plane = Plane::new();
    plane.put_agent(&agent("1.0.0"));
    for value in [
        r#"/var/log/a b.log,/srv/"x"/*.log"#,
        r"/c:\d\\e",
        "/$HOME/`id`/$(id)",
        "'quoted'",
        " /blank ",
        "/ä#;=%s&|>",
        "\"",
        "\\",
    ] {
        let host = host().unwrap();
        let (token, address) = (plane.token("acme"), plane.address());
        let env = [("SM_TOKEN", &*token), ("SM_INGEST_URL", &*address)];
        let ended = host.install("sh", &["--file", value, "--host", value], &env);
        assert_eq!(ended.code, 0, "{value}: {}", ended.said);
        let settings = host.settings(FOLDER);
        assert_eq!((&*settings["SM_FILE_PATH"], &*settings["SM_HOST_ID"]), (value, value));
        // It reads them back, and leaves them.
        assert_eq!(host.install("bash", &["--no-start"], &[]).code, 0);
        assert_eq!(host.settings(FOLDER), settings);
    }
}

#[test]
fn a_token_in_a_file_is_never_on_a_command_line_or_in_an_environment() {
    let Some(mut host) = host() else { return };
    let plane = Plane::new();
    plane.put_agent(&agent("1.0.0"));
    host.watch_programs();
    for (number, without) in [None, Some("curl")].into_iter().enumerate() {
        let file = host.path("/run/token");
        // As Windows editors write it.
        std::fs::write(&file, format!("\u{feff}{}\r\n", plane.token("acme"))).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        host.without = without;
        let folder = format!("/opt/agent-{number}");
        let (token, address) = (plane.token("acme"), plane.address());
        let arguments = ["--token-file", "/run/token", "--ingest", &address, "--install-dir", &folder];
        let ended = host.install("sh", &arguments, &[]);
        assert_eq!(ended.code, 0, "{}", ended.said);
        assert_eq!(host.settings(&folder)["SM_TOKEN"], token);
        // A variable does not go on to the programs either.
        let env = [("SM_TOKEN", &*token), ("SM_INGEST_URL", &*address)];
        let ended = host.install("bash", &["--install-dir", &folder], &env);
        assert_eq!(ended.code, 0, "{}", ended.said);
        let started = host.started();
        assert!(!started.contains(SECRET), "{started}");
        let tool = if without.is_some() { "openssl s_client" } else { "curl -qsS" };
        assert!(started.contains(tool), "{started}");
        host.keeps_the_secret(&ended);
    }
}

#[test]
fn what_is_wrong_is_said_and_nothing_is_changed() {
    let Some(_) = host() else { return };
    let plane = Plane::new();
    plane.put_agent(&agent("1.0.0"));
    let good = plane.token("acme");
    let short = &good[..good.len() - 1];
    let no_root = &good[..good.len() - 33];
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for (arguments, says) in [
        (&["--fly"][..], "unknown argument: --fly"),
        (&["--fly=1"], "unknown argument: --fly"),
        (&["fly"], "unknown argument: fly"),
        (&["FLY=1"], "unknown argument: FLY"),
        (&["SM_FLY=1"], "unknown argument: SM_FLY"),
        (&[&good], "a token needs --token before it"),
        (&["--token"], "--token needs a value"),
        (&[], "a token is needed"),
        (&["--token", ""], "a token is needed"),
        (&["--token-file", "/nowhere"], "cannot be read"),
        (&["--token", &good, "--org", "other"], "--org is other, but the token is of acme"),
        (&["--token", short], "the token is damaged"),
        (&["--token", no_root, "--ingest", &plane.address()], "this token names no authority"),
        (&["--token", "s3cret"], "names no organisation"),
        (&["--token", &good, "--ingest", "::1"], "stands in brackets"),
        (&["--token", &good, "--ingest", "a:b"], "the port is a number"),
        (&["--token", &good, "--ingest", "a b"], "a name or address"),
        (&["--token", &good, "--ingest", &closed], "cannot be reached"),
        (&["--token", &good, "--host", "a\nb"], "control characters"),
        (&["--token", &good, "--ca", "/etc/passwd"], "holds no certificate"),
        (&["--token", &good, "--binary", "/nowhere"], "/nowhere cannot be read"),
        (&["--token", &good, "--install-dir", "relative"], "an absolute path"),
        (&["--token", &good, "--install-dir", "/etc"], "belongs to the system"),
        (&["--token", &good, "--install-dir", "/opt/../etc/x"], "no .."),
        (&["--token", &good, "--install-dir", "/opt/a b"], "letters, digits"),
    ] {
        let host = host().unwrap();
        let before: Vec<_> = ["/opt", "/var/lib", "/run"].map(|path| host.tree(path)).into();
        let ended = host.install("sh", arguments, &[]);
        assert!(ended.code == 1 && ended.said.contains(says), "{arguments:?}: {} {}", ended.code, ended.said);
        assert_eq!(["/opt", "/var/lib", "/run"].map(|path| host.tree(path)).to_vec(), before, "{arguments:?}");
        host.keeps_the_secret(&ended);
    }
    let host = host().unwrap();
    let help = host.install("sh", &["--help"], &[]);
    assert!(help.code == 0 && help.said.starts_with("Usage: install.sh"), "{}", help.said);
}

#[test]
fn a_folder_that_others_can_change_is_not_run_from() {
    let Some(mut host) = host() else { return };
    let plane = Plane::new();
    plane.put_agent(&agent("1.0.0"));
    let (token, address) = (plane.token("acme"), plane.address());
    let env = [("SM_TOKEN", &*token), ("SM_INGEST_URL", &*address)];
    for (prepare, folder, says) in [
        ("mkdir -p /opt/a; chown 1000 /opt/a", "/opt/a/agent", "belongs to another user"),
        ("mkdir -p /opt/b; chmod 0777 /opt/b", "/opt/b/agent", "can be written by others"),
        ("mkdir -p /opt/c; ln -sfn /opt/c /opt/d", "/opt/d", "is a link"),
    ] {
        host.prepare = prepare;
        let ended = host.install("sh", &["--install-dir", folder], &env);
        assert!(ended.code == 1 && ended.said.contains(says), "{folder}: {}", ended.said);
        assert!(!host.path(folder).join("sm-agent").exists());
    }
    // The folder itself becomes root's, as an original left it: others' files in it stay.
    host.prepare = "mkdir -p /opt/security-manager; echo x >/opt/security-manager/ingest; chown -R 1000 /opt/security-manager; chmod 0775 /opt/security-manager";
    let ended = host.install("sh", &[], &env);
    assert!(ended.code == 0 && ended.said.contains("is now root's only"), "{}", ended.said);
    let (owner, mode, _) = &host.tree(FOLDER)[std::path::Path::new(&FOLDER[1..])];
    assert_eq!((*owner, *mode), (0, 0o755));
    assert!(host.path(FOLDER).join("ingest").exists());
}
